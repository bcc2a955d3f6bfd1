"""What TensorBoard itself reads in a folder of event files, as JSON: its own reader drops what a resumed run makes again.

    python3 read.py FOLDER

Needs the package tensorboard.
"""

import hashlib
import json
import sys

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

reader = EventAccumulator(sys.argv[1], size_guidance={"scalars": 0, "images": 0, "histograms": 0})
reader.Reload()
tags = reader.Tags()
print(
    json.dumps(
        {
            "version": reader.file_version,
            "scalars": {tag: [[e.step, e.value] for e in reader.Scalars(tag)] for tag in tags["scalars"]},
            "images": {
                tag: [
                    [e.step, e.width, e.height, hashlib.sha256(e.encoded_image_string).hexdigest()]
                    for e in reader.Images(tag)
                ]
                for tag in tags["images"]
            },
            "histograms": {
                tag: [
                    [e.step, e.histogram_value.num, e.histogram_value.bucket_limit, e.histogram_value.bucket]
                    for e in reader.Histograms(tag)
                ]
                for tag in tags["histograms"]
            },
        }
    )
)
