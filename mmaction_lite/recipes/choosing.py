"""Rules that choose how to train on a data set: from nothing, fine-tuning, LoRA or a probe."""

from collections.abc import Callable
from typing import Literal, NamedTuple

from mmaction_lite.recipes.finetune import FEWEST_CLIPS

Method = Literal["from nothing", "fine-tune", "lora", "probe"]

LONGEST_HOURS = 6.0  # of a fine-tuning that is started without asking
FEW_CLIPS = 50  # clips per class; below, adapters overfit less than all weights of a transformer
LARGE, MANY_CLIPS = 200e6, 10_000  # parameters of an encoder that needs this many clips for fine-tuning


class Facts(NamedTuple):
    """What is known before a training is chosen.

    Args:
        has_weights: whether there are trained weights of a video network.
        is_transformer: whether the network has linear layers for LoRA.
        parameters: number of parameters of the network.
        clips: training clips.
        clips_per_class: training clips of the median class.
        hours: estimated duration of fine-tuning on the device.
        training_gib: estimated memory of fine-tuning, in GiB.
        memory_gib: free memory of the device, in GiB.
    """

    has_weights: bool
    is_transformer: bool
    parameters: int
    clips: int
    clips_per_class: float
    hours: float
    training_gib: float
    memory_gib: float


class Rule(NamedTuple):
    """One row of the table of rules.

    Args:
        method: how to train if the rule applies.
        condition: the condition in words, for the documentation.
        applies: the condition.
        reason: the printed reason, with fields of `Facts` in braces.
    """

    method: Method
    condition: str
    applies: Callable[[Facts], bool]
    reason: str


RULES = (
    Rule(
        "from nothing",
        "there are no trained weights",
        lambda facts: not facts.has_weights,
        "there are no trained weights of a video network",
    ),
    Rule(
        "probe",
        f"there are fewer than {FEWEST_CLIPS} clips",
        lambda facts: facts.clips < FEWEST_CLIPS,
        f"{{clips}} clips are fewer than the {FEWEST_CLIPS} of the smallest batch of fine-tuning",
    ),
    Rule(
        "probe",
        f"the network has over {LARGE / 1e6:.0f} M parameters, and there are fewer than {MANY_CLIPS:,} clips",
        lambda facts: facts.parameters > LARGE and facts.clips < MANY_CLIPS,
        "{clips} clips are few for all weights of a network of {parameters:,} parameters",
    ),
    Rule(
        "probe",
        f"fine-tuning takes more than {LONGEST_HOURS:g} hours on the device",
        lambda facts: facts.hours > LONGEST_HOURS,
        "fine-tuning would take about {hours:.0f} hours on this device; a probe reads every clip once",
    ),
    Rule(
        "lora",
        "fine-tuning does not fit into memory, and the network is a transformer",
        lambda facts: facts.is_transformer and facts.training_gib > facts.memory_gib,
        "fine-tuning needs about {training_gib:.1f} GiB of memory, and {memory_gib:.1f} GiB are free",
    ),
    Rule(
        "probe",
        "fine-tuning does not fit into memory",
        lambda facts: facts.training_gib > facts.memory_gib,
        "fine-tuning needs about {training_gib:.1f} GiB of memory, and {memory_gib:.1f} GiB are free",
    ),
    Rule(
        "lora",
        f"the network is a transformer, and the median class has fewer than {FEW_CLIPS} clips",
        lambda facts: facts.is_transformer and facts.clips_per_class < FEW_CLIPS,
        "{clips_per_class:g} clips per class are few for all weights of a transformer",
    ),
    Rule(
        "fine-tune",
        "otherwise",
        lambda facts: True,
        "there are trained weights, and fine-tuning fits time (about {hours:.1f} h) and memory",
    ),
)
"""The rules in their order; the first one that applies counts."""


def choose_method(facts: Facts) -> tuple[Method, str]:
    """Return the method of the first rule that applies, and the reason in words."""
    rule = next(rule for rule in RULES if rule.applies(facts))
    return rule.method, rule.reason.format(**facts._asdict())
