"""Published hyper-parameters of X3D, copied by hand; see `published.py`.

Source: PySlowFast, `configs/Kinetics/X3D_*.yaml`, `slowfast/config/defaults.py` and `MODEL_ZOO.md`. The head
pools the 5x5, 7x7 or 10x10 features of the training crops, and averages the probabilities of its windows.
"""

from dataclasses import replace

from tests.recipes.published import PYSLOWFAST, Jitter, Protocol

X3D = replace(
    PYSLOWFAST,
    batch_size=128,
    epochs=300,
    lr=0.1,
    weight_decay=5e-5,
    warmup_epochs=35,
    warmup_lr=0.01,
    clip=(16, 5),
    crop=Jitter(short_side=(256, 320)),
    train_size=224,
    val=Protocol(crops=1, size=256, short_side=256, window=7),
    test=Protocol(clips=10, crops=3, size=256, short_side=256, window=7),
    top1=76.2,
    top5=None,
)
SMALL = replace(
    X3D,
    crop=Jitter(short_side=(182, 228)),
    train_size=160,
    val=Protocol(crops=1, size=182, short_side=182, window=5),
    test=Protocol(clips=10, crops=3, size=182, short_side=182, window=5),
)
TABLE = {
    "x3d_xs_4x12x1_300e_kinetics400_rgb": replace(SMALL, clip=(4, 12), top1=69.5),
    "x3d_s_13x6x1_300e_kinetics400_rgb": replace(SMALL, clip=(13, 6), top1=73.5),
    "x3d_m_16x5x1_300e_kinetics400_rgb": X3D,
    "x3d_l_16x5x1_256e_kinetics400_rgb": replace(
        X3D,
        batch_size=64,
        epochs=256,
        lr=0.05,
        crop=Jitter(short_side=(356, 446)),
        train_size=312,
        val=Protocol(crops=1, size=356, short_side=356, window=10),
        test=Protocol(clips=10, crops=3, size=356, short_side=356, window=10),
        top1=77.5,
    ),
}
# As in `published.DEVIATIONS`: no weight decay of biases.
DEVIATIONS: dict[tuple[str, str], object] = {
    (name, "decayed"): frozenset({"convolution", "classifier weight"}) for name in TABLE
}
# Published by nobody else.
OWN = {"x3d_s_13x6x1_13e_ucf101_rgb", "x3d_s_13x6x1_36e_hmdb51_rgb"}
