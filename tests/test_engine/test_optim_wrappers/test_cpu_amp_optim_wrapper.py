import torch
from mmengine.config import ConfigDict
from mmengine.optim import build_optim_wrapper


def test_a_training_step_in_bfloat16(build, batch):
    """Half precision on the host, float32 in what the loss is made of."""
    model = build('classifier').train()
    wrapper = build_optim_wrapper(
        model,
        ConfigDict(
            type='mmfeatjnd.CPUAmpOptimWrapper',
            optimizer=dict(type='SGD', lr=0.1)))
    dtypes = []
    model.head.fc.register_forward_hook(
        lambda m, x, y: dtypes.append(y.dtype))
    model.neck.estimators[0].register_forward_hook(
        lambda m, x, y: dtypes.append(y.dtype))
    before = model.neck.estimators[0].expand.weight.detach().clone()
    inputs, samples = batch('classifier')
    log = model.train_step(dict(inputs=inputs, data_samples=samples), wrapper)
    # clean logits, the map, perturbed logits
    assert dtypes == [torch.bfloat16, torch.float32, torch.bfloat16]
    assert all(torch.isfinite(v).all() for v in log.values())
    after = model.neck.estimators[0].expand.weight
    assert after.dtype == torch.float32
    assert torch.isfinite(after).all() and not torch.equal(before, after)
    assert not torch.is_autocast_enabled('cpu')
    # the discrepancy is close to that of full precision
    full = build('classifier').train().loss(inputs, samples)
    torch.testing.assert_close(
        log['jnd_magnitude'], full['jnd_magnitude'], rtol=0.02, atol=0.02)
    torch.testing.assert_close(
        model.neck.estimators[0].channels.mean_square.float(),
        torch.as_tensor(_mean_square(build, inputs)), rtol=0.05, atol=1e-4)


def _mean_square(build, inputs):
    with torch.no_grad():
        feature = build('classifier').backbone(inputs)[0]
    return feature.square().mean((0, 2, 3))
