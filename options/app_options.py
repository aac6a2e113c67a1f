"""Options of app.py."""

from dataclasses import dataclass

from cloth_segmentation.command.base_options import OptionError, option
from cloth_segmentation.command.infer_options import SegmentOptions


@dataclass(frozen=True)
class AppOptions(SegmentOptions):
    """Open a page to try the network on: drop a photo, see its clothes, take masks and cut-outs along."""

    port: int = option(7860, "where the page is: http://HOST:PORT", least=1, most=65535)
    host: str = option("127.0.0.1", "address to listen at: 127.0.0.1 for this machine alone, 0.0.0.0 for its network")
    max_megabytes: float = option(20.0, "size of the largest file that is taken", above=0)
    max_megapixels: float = option(50.0, "size of the largest photo that is taken, million pixels", above=0, most=178)

    def __post_init__(self) -> None:
        super().__post_init__()
        if ":" in self.host:
            raise OptionError(f"--host: expected a name or an IPv4 address such as 0.0.0.0, found {self.host!r}")
