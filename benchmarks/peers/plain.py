"""Training and inference steps for networks whose project has no training code, with fused optimizers."""

import torch
from torch.nn import functional

MEAN, STD = (114.75, 114.75, 114.75), (57.375, 57.375, 57.375)


def phases(options, model, inputs, optimizer="SGD", *, no_video):
    """Return the phases "train", "infer" and "check" of `model`; its argument is `inputs(clip)`.

    `no_video` states why the project cannot train from video files.
    """
    device, precision = options["device"], getattr(torch, options["precision"])
    model = model.to(device)
    clips, frames, height, width = options["input"]
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (clips, 3, frames, height, width), generator=generator, dtype=torch.uint8)
    labels = torch.zeros(clips, dtype=torch.long, device=device)
    mean = torch.tensor(MEAN, device=device).view(3, 1, 1, 1)
    std = torch.tensor(STD, device=device).view(3, 1, 1, 1)
    settings = {"momentum": 0.9, "weight_decay": 1e-4} if optimizer == "SGD" else {"weight_decay": 0.05}
    optimizer = getattr(torch.optim, optimizer)(model.parameters(), lr=1e-6, fused=True, **settings)
    scaler = torch.amp.GradScaler(device, enabled=precision == torch.float16)

    def run():
        clip = (pixels.to(device).float() - mean) / std
        with torch.autocast(device, precision, enabled=precision != torch.float32):
            return model(inputs(clip))

    def train():
        model.train()
        optimizer.zero_grad()
        scaler.scale(functional.cross_entropy(run().float(), labels)).backward()
        scaler.step(optimizer)
        scaler.update()

    @torch.no_grad()
    def infer():
        model.eval()
        run().softmax(1)

    @torch.no_grad()
    def check(file):
        model.eval()
        clip = torch.randn(1, 3, frames, height, width, generator=torch.Generator().manual_seed(0))
        logits = model(inputs(clip.to(device))).cpu()
        torch.save({"state_dict": model.state_dict(), "clip": clip, "logits": logits}, file)

    return {"train": train, "infer": infer, "check": check, "video": no_video}
