"""A dataset of your own through the whole graph: scikit-learn's handwritten digits, as folders.

Run from the root: python examples/digits.py

1,797 real images of 8 x 8 pixels, which come with scikit-learn, are written as PNG to a folder for
each class, and everything runs in the workspace `digits/`; no tracked file is touched. The base is
a narrow AlexNet with seeded (random) weights, as stand-ins that need no download: that heads do
well on it says something of digits, and nothing of the published network.
"""

import sys
from pathlib import Path

from PIL import Image
from ruamel.yaml import YAML
from sklearn.datasets import load_digits

from stages.demo import copy_project, repro

WORKSPACE = Path("digits")

images, labels = load_digits(return_X_y=True)
for number, (image, label) in enumerate(zip(images, labels, strict=True)):
    path = WORKSPACE / f"images/{label}/{number:04}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = (image.reshape(8, 8) * (255 / 16)).astype("uint8")  # from 0..16
    Image.fromarray(pixels).save(path)

copy_project(WORKSPACE)
yaml = YAML()
params = yaml.load(Path("params.yaml"))
params["prepare"]["source"] = "images"  # the one setting; the rest is to be done in a minute
params["base"] |= {"variant": "narrow", "weights": "seeded", "layers": ["pool5"]}
params["heads"] = {name: params["heads"][name] for name in ("ridge", "neighbours", "nearest_mean")}
params["study"]["heads"] = ["ridge"]
yaml.dump(params, WORKSPACE / "params.yaml")

if status := repro(WORKSPACE):
    sys.exit(status)
print((WORKSPACE / "results/comparison.txt").read_text())
print(f"digits: report -> {WORKSPACE / 'results/report.html'}")
