"""Find the clothes in very many photos, on one machine or on a Ray cluster: a Parquet table, masks, cut-outs.

python infer_batch.py --input photos/ --output table/
python infer_batch.py --input s3://shop/photos --output s3://shop/clothes --save mask --pack tar
python infer_batch.py --input photos.parquet --output table/ --resume

It is the command of the library, cloth_segmentation/batch/, with PyTorch as a second engine. It needs Ray:
pip install -r requirements-ray.txt
"""

from collections.abc import Sequence

from cloth_segmentation import Error
from cloth_segmentation.batch.main import main as segment_batch
from cloth_segmentation.command.script import run_script
from infer import Segmenter


def main(argv: Sequence[str] | None = None) -> int:
    return segment_batch(argv, Segmenter)


if __name__ == "__main__":
    run_script(main, Error)
