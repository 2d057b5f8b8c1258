import pytest
import torch
from mmengine.runner import load_checkpoint

from mmfeatjnd.models import FeatJNDNeck, Perturbation, Quantization

ESTIMATOR = dict(type='mmfeatjnd.ConvEstimator', hidden_channels=4)


def make_neck(in_channels=(3, 5), mode='signed', **kwargs):
    torch.manual_seed(0)
    return FeatJNDNeck(
        dict(ESTIMATOR, mode=mode), in_channels=in_channels, **kwargs).eval()


def make_features():
    return torch.rand(2, 3, 4, 4), torch.rand(2, 5, 2, 2)


def plus_one(feature, level, visit):
    return feature + 1 + level


def test_a_tuple_comes_out_of_anything():
    neck, features = make_neck(), make_features()
    for given in (features, list(features), iter(features)):
        out = neck(given)
        assert isinstance(out, tuple) and len(out) == 2
        # untouched, not even copied
        assert out[0] is features[0] and out[1] is features[1]
    out = make_neck([3])(features[0])
    assert isinstance(out, tuple) and out[0] is features[0]


def test_only_configured_levels_change():
    features = make_features()
    neck = make_neck(levels=[1])
    with neck.run(plus_one):
        out = neck(features)
    assert out[0] is features[0]
    assert torch.equal(out[1], features[1] + 2)
    # the second of two estimators, the only one that was built
    assert len(neck.estimators) == 1
    assert neck.estimator_of(1).in_channels == 5


def test_more_levels_than_configured_pass():
    features = make_features()
    neck = make_neck([3])
    with neck.run(plus_one):
        out = neck(features)
    assert torch.equal(out[0], features[0] + 1) and out[1] is features[1]


def test_dtype_and_layout_are_kept():
    neck = make_neck([3, 3, 3])
    levels = (torch.rand(2, 3, 4, 4).bfloat16(), torch.rand(2, 7, 3).half(),
              torch.rand(2, 3).double())
    with neck.run(lambda x, level, visit: x.float() * 2):
        out = neck(levels)
    for a, b in zip(levels, out):
        assert a.dtype == b.dtype and a.shape == b.shape
        torch.testing.assert_close(b, a * 2, rtol=1e-2, atol=1e-2)


def test_the_change_is_put_back():
    neck, features = make_neck(), make_features()
    with neck.run(plus_one) as run:
        assert neck.change is run
        with pytest.raises(KeyError):
            with neck.changing(None):
                assert neck.change is None
                assert neck(features)[0] is features[0]
                raise KeyError
        assert torch.equal(neck(features)[1], features[1] + 2)
    assert neck.change is None


@pytest.mark.parametrize('error', [KeyError, KeyboardInterrupt])
def test_nothing_outlives_a_run_that_breaks_off(error):
    """Else every later prediction of the model would be distorted."""
    neck, features = make_neck(), make_features()

    def breaks(feature, level, visit):
        raise error

    with pytest.raises(error):
        with neck.run(breaks):
            neck(features)
    with pytest.raises(error):
        with neck.run(plus_one):
            neck(features)
            raise error
    assert neck.change is None
    assert all(a is b for a, b in zip(neck(features), features))


def test_a_run_that_did_not_pass_the_split():
    neck = make_neck()
    with pytest.raises(ValueError, match=r'not reached for level\(s\) '
                       r'\[0, 1\]'):
        with neck.run(plus_one):
            pass
    with pytest.raises(ValueError, match=r'level\(s\) \[1\].*'
                       r'in_channels=\[3, 5\]'):
        with neck.run(plus_one):
            neck.apply_level(make_features()[0], 0)
    # levels that nothing reads need not be reached
    neck.read_levels = (0, )
    with neck.run(plus_one):
        neck.apply_level(make_features()[0], 0)


def test_levels_that_nothing_reads_stay():
    neck, features = make_neck(), make_features()
    neck.read_levels = (1, )
    with neck.run(plus_one) as run:
        out = neck(features)
    assert out[0] is features[0]
    assert torch.equal(out[1], features[1] + 2)
    assert run.visited == {1}
    assert neck.active_levels == (1, )
    assert neck.active_estimators() == [neck.estimators[1]]
    # what recorders see is whatever the split emits
    with neck.changing(lambda x, level: x * 0):
        assert not any(x.any() for x in neck(features))


def test_estimators_by_level():
    neck = make_neck([3, 5], levels=[1, 0])
    assert [e.in_channels for e in neck.estimators] == [5, 3]
    assert neck.estimator_of(0).in_channels == 3
    shared = make_neck([3, 3, 9], levels=[0, 1], shared=True)
    assert len(shared.estimators) == 1
    assert shared.estimator_of(0) is shared.estimator_of(1)


@pytest.mark.parametrize('kwargs, message', [
    (dict(in_channels=None), 'Set in_channels'),
    (dict(levels=[2]), r'levels=\[2\].*in_channels=\[3, 5\]'),
    (dict(levels=[-1]), r'levels=\[-1\]'),
    (dict(levels=[0, 0]), 'must be different'),
    (dict(levels=[]), r'levels=\[\]'),
    (dict(shared=True), 'shared=True needs the same number'),
    (dict(split='neck'), "split='neck'.*none is given"),
    (dict(split='fpn'), "split='fpn'.*none is given"),
    (dict(split='backbone.layer1', in_channels=None), 'Set in_channels'),
])
def test_errors_at_build(kwargs, message):
    with pytest.raises(ValueError, match=message):
        make_neck(**kwargs)


def test_errors_at_run():
    neck = make_neck()

    def run(*features):
        with neck.run(plus_one):
            neck(features)

    maps, tokens = make_features()[0], torch.rand(2, 7, 5)
    with pytest.raises(ValueError, match=r'emits 1 level.*\[0, 1\]'):
        run(maps)
    with pytest.raises(TypeError, match="level 1 of split 'backbone'"):
        run(maps, torch.zeros(2, 5).long())
    with pytest.raises(ValueError, match='got shape'):
        run(maps, torch.zeros(2, 5, 1, 1, 1))
    run(maps, tokens)
    with pytest.raises(ValueError, match=r"split='backbone' emits 7 channels "
                       r'in level 1, but in_channels=\[3, 5\]'):
        run(maps, tokens.mT)


# ----------------------------------------------------------------- the layout
def last(x):
    return x.permute(0, 2, 3, 1)


@pytest.mark.parametrize('declared', [None, 'NHWC'])
@pytest.mark.parametrize('operation', [
    Perturbation('gaussian', 0.5), Perturbation('permuted', 0.5),
    Perturbation('featjnd', 0.5), Quantization('gradient', noise_budget=0.5),
    Quantization('permuted-steps', noise_budget=0.5)
], ids=lambda operation: operation.name)
def test_channels_last(operation, declared):
    """The same as of the map with its channels in the second axis."""
    first = make_neck([5], 'envelope')
    second = make_neck([5], 'envelope', layout=declared)
    feature = torch.rand(2, 5, 4, 3)
    sensitivity = torch.rand(2, 5, 4, 3)
    with torch.no_grad():
        with first.run(
                operation, sensitivity={0: [sensitivity]}) as expected:
            a, = first([feature])
        with second.run(
                operation, sensitivity={0: [last(sensitivity)]}) as run:
            b, = second([last(feature).contiguous()])
    assert b.shape == (2, 4, 3, 5)
    assert b.is_contiguous()  # hosts view it as tokens
    torch.testing.assert_close(b, last(a))
    assert not torch.allclose(a, feature)
    for key, value in expected.measured.items():
        torch.testing.assert_close(
            run.measured[key], value, rtol=1e-6, atol=1e-6)


def layout(shape, **kwargs):
    return make_neck([5], **kwargs).layout_of(torch.zeros(shape), 0)


def test_where_the_channels_are():
    assert layout((1, 5, 4, 3)) == 'NCHW'
    assert layout((1, 4, 3, 5)) == 'NHWC'
    assert layout((1, 5, 4, 5)) == 'NCHW'  # either; declare it if it is not
    assert layout((1, 5, 4, 5), layout='NHWC') == 'NHWC'
    assert layout((1, 4, 5)) == layout((1, 5)) == 'NCHW'
    for shape in ((1, 4, 5, 3), (1, 6, 4, 6)):  # the configured one is nowhere
        with pytest.raises(ValueError, match=r'emits \d channels in level 0, '
                           "in the layout NCHW.*or layout='NHWC'"):
            layout(shape)
    # what is declared must be so
    with pytest.raises(ValueError, match='emits 3 channels.*layout NHWC'):
        layout((1, 5, 4, 3), layout='NHWC')
    with pytest.raises(ValueError, match='emits 4 channels.*layout NCHW'):
        layout((1, 4, 3, 5), layout='NCHW')


def test_what_the_module_says_goes_before_the_number():
    """Its rows would be taken for channels, if there were so many."""
    neck = make_neck([5], split='backbone.layers')
    for emitted, shape, expected in (((5, ), (1, 5, 5, 5), 'NCHW'),
                                     ((5, ), (1, 4, 3, 5), 'NHWC'),
                                     ((9, ), (1, 5, 4, 3), 'NCHW'),
                                     ((None, ), (1, 4, 3, 5), 'NHWC'),
                                     ((), (1, 5, 4, 3), 'NCHW')):
        neck.emitted = emitted
        assert neck.layout_of(torch.zeros(shape), 0) == expected
    neck.emitted = (8, )  # in_channels is the height of the map
    with pytest.raises(ValueError, match='emits 8 channels.*layout NHWC'):
        neck.layout_of(torch.zeros(1, 5, 5, 8), 0)


def test_a_layout_that_is_none():
    with pytest.raises(ValueError, match="layout must be one of.*'CHWN'"):
        make_neck(layout='CHWN')


def test_channels_from_the_host(build):
    assert build('detector').neck.in_channels == (8, 16, 32, 64)
    assert build('detector', split='neck').neck.in_channels == (16, ) * 5
    assert build('detector', split='fpn').neck.split == 'neck'


@pytest.mark.parametrize('kind', ['classifier', 'segmentor', 'detector'])
def test_plain_host_checkpoints_load_key_for_key(build, configs, kind,
                                                 tmp_path, capsys, messages):
    host_cfg, _ = configs
    plain = build(host_cfg(kind))
    state = plain.state_dict()
    model = build(kind)
    with torch.no_grad():
        for p in model.parameters():
            p.fill_(0.123)
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert unexpected == []
    assert missing == []
    loaded = model.state_dict()
    for key, value in state.items():
        mapped = key.replace('neck.', 'neck.neck.', 1) if key.startswith(
            'neck.') else key
        assert torch.equal(loaded[mapped], value), key
    begun = [v for k, v in loaded.items() if '.expand.' in k]
    assert begun and all((v == 0.123).all() for v in begun)
    assert set(state) == set(plain.state_dict())  # the file's own is left
    # the way of the Runner and of the inferencers
    torch.save(dict(state_dict=state), tmp_path / 'host.pth')
    capsys.readouterr()
    again = build(kind)
    load_checkpoint(again, str(tmp_path / 'host.pth'), 'cpu')
    text = ''.join([*capsys.readouterr(), *messages])
    assert 'unexpected' not in text and 'missing' not in text
    assert 'Loading all weights of' in text
    assert 'estimators are not in the checkpoint and begin anew' in text
    for key in loaded:
        if '.estimators.' not in key:
            assert torch.equal(again.state_dict()[key], loaded[key]), key


def test_own_checkpoints_load_strictly(build, messages):
    model, other = build('detector'), build('detector')
    with torch.no_grad():
        for p in other.parameters():
            p.add_(1)
    other.featjnd_objective.multiplier.fill_(7.)
    assert not any(model.load_state_dict(other.state_dict(), strict=True))
    assert 'its estimators are loaded as well' in messages[-1]
    for key, value in other.state_dict().items():
        assert torch.equal(model.state_dict()[key], value), key
    assert model.featjnd_objective.multiplier == 7


def test_a_host_checkpoint_keeps_the_objective(build, configs):
    """Loading the host is no reason to forget the multiplier."""
    model = build('classifier')
    model.featjnd_objective.multiplier.fill_(7.)
    host = build(configs[0]('classifier')).state_dict()
    model.load_state_dict(host, strict=False)
    assert model.featjnd_objective.multiplier == 7


@pytest.mark.parametrize('change', [
    dict(estimator=dict(hidden_channels=16)),
    dict(levels=[0, 1]),
    dict(shared=True, split='neck'),
])
def test_an_estimator_of_another_config_is_refused(build, change, tmp_path):
    other = build('detector', **change)
    torch.save(dict(state_dict=other.state_dict()), tmp_path / 'other.pth')
    with pytest.raises(ValueError, match='another host, split or estimator'):
        load_checkpoint(build('detector'), str(tmp_path / 'other.pth'), 'cpu')


@pytest.mark.parametrize('split', ['backbone', 'neck'])
def test_inference_in_a_plain_host_config(build, configs, batch, split):
    """FeatJNDNeck needs no FeatJND around it, but for named splits."""
    host_cfg, featjnd_cfg = configs
    inputs, _ = batch('detector')
    with torch.no_grad():
        host = build(host_cfg('detector'))
        cfg = dict(
            host_cfg('detector'), neck=featjnd_cfg(
                'detector', plain=True, split=split)['neck'])
        model = build(cfg)
        model.load_state_dict(host.state_dict(), strict=False)
        expected = host.extract_feat(inputs)
        for a, b in zip(model.extract_feat(inputs), expected, strict=True):
            assert torch.equal(a, b)
        with model.neck.run(lambda x, i, visit: x * 2):
            changed = model.extract_feat(inputs)
    assert not any(torch.equal(a, b) for a, b in zip(changed, expected))
    if split == 'neck':
        assert all(torch.equal(a, 2 * b) for a, b in zip(changed, expected))


def test_a_named_split_in_a_plain_host_config(build, configs, batch):
    model = build(
        configs[1]('detector', plain=True, split='r3', in_channels=[16]))
    inputs, _ = batch('detector')
    with torch.no_grad():
        model.extract_feat(inputs)  # nothing to do, nothing to say
        with pytest.raises(RuntimeError, match='find_neck'):
            with model.neck.run(plus_one):
                model.extract_feat(inputs)


def test_names_of_splits(build):
    from mmfeatjnd.models.splits import resolve_split
    for split, channels, modules in (
        ('r2', 8, ['backbone.layer1']),
        ('backbone.layer2.0', 16, ['backbone.layer2.0']),
        ('c2', [16] * 4, [f'neck.neck.lateral_convs.{i}' for i in range(4)]),
        ('neck.fpn_convs.1', 16, ['neck.neck.fpn_convs.1']),
    ):
        model = build('detector', split=split, in_channels=channels)
        found = resolve_split(model.neck)
        named = dict(model.named_modules())
        assert [id(m) for m in found] == [id(named[n]) for n in modules]


@pytest.mark.parametrize('split, near', [
    ('backbone.layer9', "'backbone.layer"),
    ('backbone.lyer2', "'backbone.layer2'"),
    ('neck.lateral_conv', "'neck.lateral_convs'"),
])
def test_unknown_splits_suggest_the_nearest(build, split, near):
    with pytest.raises(ValueError, match=f"no module '{split}'.*mean.*{near}"):
        build('detector', split=split, in_channels=16)


def test_a_list_of_modules_that_is_too_short(build):
    with pytest.raises(ValueError, match='a list of 4 modules.*levels'):
        build('detector', split='c2', in_channels=[16] * 5)
