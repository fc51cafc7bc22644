from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

# A process of its own, because a peak never falls. What the image encoder alone takes is counted too.
MEASURE = """
import resource, sys
import numpy as np
from PIL import Image
import risengine
from risengine.demo import demo_pictures

def resident_mb():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 2**20

side = int(sys.argv[1])
settings = dict(points_per_side=side, pred_iou_thresh=0.3, stability_score_thresh=0.5)
with risengine.load("tabletop", risengine.RuntimeConfig(threads=2), **settings) as engine:
    with Image.open(demo_pictures()[0].path) as picture:
        image = np.array(picture.convert("RGB").resize((4000, 3000)))
        engine.proposals(np.array(picture.convert("RGB").resize((400, 300)))[:30, :40])
    before = resident_mb()
    found = engine.proposals(image)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(before, peak - before, len(found))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from Linux's /proc")
@pytest.mark.timeout(1200)
def test_peak_memory_is_bounded_and_does_not_grow_with_the_grid() -> None:
    peaks = {}
    for side in (16, 64):
        command = [sys.executable, "-c", MEASURE, str(side)]
        out = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        peaks[side] = float(out[1])
        assert int(out[2]) > 0
    assert peaks[64] < 2000, peaks
    assert peaks[64] < 1.25 * peaks[16] + 100, peaks
