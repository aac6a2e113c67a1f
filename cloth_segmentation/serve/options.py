"""Options of serve.py."""

from dataclasses import dataclass

from cloth_segmentation.command.base_options import OptionError, option
from cloth_segmentation.command.infer_options import SegmentOptions, words

LOGS = ("text", "json")
"""Forms of the lines of the log."""


@dataclass(frozen=True)
class ServeOptions(SegmentOptions):
    """Find the clothes in photos that come over HTTP, one at a time."""

    port: int = option(8000, "where the service is: http://HOST:PORT", least=1, most=65535)
    host: str = option("127.0.0.1", "address to listen at: 127.0.0.1 for this machine alone, 0.0.0.0 for its network")
    hosts: str = option(
        "", "names under which it is reached, separated by commas, beside localhost, its own name, and IP addresses"
    )
    origins: str = option(
        "", "web pages of other servers that may ask, separated by commas, such as https://shop.example [none]"
    )
    proxies: str = option(
        "", "IP addresses or networks of proxies, separated by commas, whose X-Forwarded- headers are believed [none]"
    )
    keys: str = option(
        "", "file with a key in each line, of which requests must bring one [$CLOTH_SEGMENTATION_KEYS, else none]"
    )
    places: int = option(
        64, "requests at once, those that wait for the network included; others are told to ask again later", least=1
    )
    batch_size: int = option(
        0, "photos that go through the network at once, at most; 0: what is fastest, measured at the start", least=0
    )
    workers: int = option(2, "threads that read photos, and as many that draw, beside the network", least=1)
    max_megabytes: float = option(20.0, "size of the largest file that is taken", above=0)
    max_megapixels: float = option(50.0, "size of the largest photo that is taken, million pixels", above=0, most=178)
    max_seconds: float = option(30.0, "seconds from the head of a request to its answer", above=0)
    log: str = option("text", "form of the log, which has a line for each request: text or json", choices=LOGS)
    page: bool = option(False, "have the page of app.py too, at /page (in a clone)")

    def __post_init__(self) -> None:
        super().__post_init__()
        if ":" in self.host:
            raise OptionError(f"--host: expected a name or an IPv4 address such as 0.0.0.0, found {self.host!r}")
        for origin in self.listed("origins"):
            if not origin.startswith(("http://", "https://")) or origin.count("/") != 2:
                raise OptionError(
                    f"--origins: expected addresses without a path, such as https://shop.example, found {origin!r}"
                )
        if self.size == "native" and self.batch_size > 1:
            raise OptionError(
                f"--size native: expected --batch_size 1, since photos differ in size, found {self.batch_size}"
            )

    def listed(self, name: str) -> tuple[str, ...]:
        """An option that is a list of addresses, as a tuple, in lower case, as browsers have them."""
        text = getattr(self, name)
        return words(text.lower()) if text else ()
