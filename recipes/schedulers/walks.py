"""Walks of diffusers' schedulers that tests/schedulers.rs follows step by step: writes tests/schedulers/walks.json.

    python recipes/schedulers/walks.py > tests/schedulers/walks.json      # diffusers 0.42, torch 2.15

The network is a formula of its input, its timestep and the channel; noise is a sine of its place in the stream. Both are the test's, too.
"""

import json
import sys

import diffusers
import numpy as np
import torch

SHAPE = (1, 2, 2, 2)
SD = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
ZERO_SNR = dict(rescale_betas_zero_snr=True, timestep_spacing="trailing", **SD)


def wave(index, length):
    """The `index`th draw from the stream, as the test makes it."""
    places = torch.arange(index * length, (index + 1) * length, dtype=torch.float64)
    return (1.5 * torch.sin(12.9898 * places + 1.0)).float()


def network(x, t):
    channel = torch.arange(x.shape[1], dtype=torch.float32).view(1, -1, 1, 1)
    return 0.6 * torch.tanh(x) + 0.3 * torch.sin(0.5 * x + float(t) / 250 + channel)


def walk(name, class_name, keys, steps=None, begin=0, timesteps=None, strength=None, **step_arguments):
    scheduler = getattr(diffusers, class_name)(**keys)
    draws = iter(range(1, 1000))
    module = sys.modules[type(scheduler).__module__]
    module.randn_tensor = lambda shape, **_: wave(next(draws), int(np.prod(shape))).view(shape)
    arguments = dict(timesteps=timesteps) if timesteps else dict(num_inference_steps=steps)
    if strength is not None:
        arguments["strength"] = strength
    scheduler.set_timesteps(**arguments)
    visited = scheduler.timesteps[begin:]
    if begin and hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(begin)
    is_late_in_sigmas = begin > 0 and hasattr(scheduler, "sigmas")
    scale = scheduler.sigmas[begin] if is_late_in_sigmas else scheduler.init_noise_sigma
    x = wave(0, int(np.prod(SHAPE))).view(SHAPE) * float(scale)
    initial, after = x, []
    for t in visited:
        output = network(scheduler.scale_model_input(x, t), t)
        x, second, *_ = (*scheduler.step(output, t, x, return_dict=False, **step_arguments), None)
        # What LCM's and TCD's pipelines decode, in place of x_t.
        last = len(after) + 1 == len(visited)
        after.append((second if last and class_name in ("LCMScheduler", "TCDScheduler") else x).flatten().tolist())
    assert np.isfinite(after).all(), name
    return {
        "name": name,
        "class": class_name,
        "keys": keys,
        "steps": steps or len(timesteps),
        "custom_timesteps": timesteps,
        "begin_index": begin,
        "strength": strength,
        "eta": step_arguments.get("eta"),
        "timesteps": scheduler.timesteps.tolist(),
        "sigmas": [float(sigma) for sigma in getattr(scheduler, "sigmas", [])],
        "initial": initial.flatten().tolist(),
        "after_step": after,
    }


WALKS = [
    walk("DPM2 a", "KDPM2AncestralDiscreteScheduler", SD, 6),
    walk("DPM2 a Karras", "KDPM2AncestralDiscreteScheduler", dict(use_karras_sigmas=True, **SD), 5),
    walk("DPM2 a exponential", "KDPM2AncestralDiscreteScheduler", dict(use_exponential_sigmas=True, **SD), 5),
    walk(
        "DPM2 a, v, leading",
        "KDPM2AncestralDiscreteScheduler",
        dict(prediction_type="v_prediction", timestep_spacing="leading", steps_offset=1, **SD),
        6,
    ),
    walk("DPM2 a from the third step", "KDPM2AncestralDiscreteScheduler", SD, 6, begin=4),
    walk("DPM2 a, one step", "KDPM2AncestralDiscreteScheduler", SD, 1),
    walk("DPM++ 3S, 5 steps", "DPMSolverSinglestepScheduler", dict(solver_order=3, **SD), 5),
    walk("DPM++ 3S, 8 steps", "DPMSolverSinglestepScheduler", dict(solver_order=3, **SD), 8),
    walk("DPM++ 3S, 8 steps, Karras", "DPMSolverSinglestepScheduler", dict(solver_order=3, use_karras_sigmas=True, **SD), 8),
    walk("DPM++ 3S, 8 steps, from the fourth", "DPMSolverSinglestepScheduler", dict(solver_order=3, **SD), 8, begin=3),
    walk("DDIM, ε without a signal, clipped", "DDIMScheduler", dict(clip_sample=True, **ZERO_SNR), 6),
    walk("DDPM, ε without a signal, clipped", "DDPMScheduler", dict(clip_sample=True, **ZERO_SNR), 6),
    walk("LCM, ε without a signal, clipped", "LCMScheduler", dict(clip_sample=True, rescale_betas_zero_snr=True, **SD), 4),
    walk("DDIM, ε without a signal, begun below it", "DDIMScheduler", dict(clip_sample=False, **ZERO_SNR), 6, begin=1),
    walk(
        "DDIM, v without a signal, all noise new",
        "DDIMScheduler",
        dict(prediction_type="v_prediction", clip_sample=False, **ZERO_SNR),
        8,
        eta=1.0,
    ),
    walk("LCM, a part of custom timesteps", "LCMScheduler", SD, timesteps=[999, 759, 499, 259], strength=0.8),
    walk("TCD, a part of custom timesteps", "TCDScheduler", SD, timesteps=[999, 759, 499, 259], strength=0.8, eta=0.3),
]
json.dump(WALKS, sys.stdout, indent=1, ensure_ascii=False)
