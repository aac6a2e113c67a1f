"""Help lines on labels, which several scripts share."""

LABELS = (
    "a CSV of iMaterialist 2019 or 2020, a JSON file of COCO, or a folder of label PNGs or labelme JSON files; their "
    "content tells"
)

CLASSES = (
    "what the network tells apart: clothes (the four classes), garments (13), garments_and_accessories (25), fashion "
    "(all 46 categories), or a TOML file that lists classes of your own"
)

IGNORE_INDEX = "value of pixels in label PNGs that count in no loss and no metric, such as 255"

RESCALE = "take photos of another size than their labels', if they differ by scale alone; the labels are scaled"
