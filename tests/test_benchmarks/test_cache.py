"""What is kept is only taken for the very same question."""
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cache
import pytest
from mmengine.config import Config


class Measure:
    """Counts how often it is asked."""

    def __init__(self, *values):
        self.values = list(values)

    def __call__(self):
        return [dict(value=self.values.pop(0))]


def test_the_same_key_is_measured_once(tmp_path):
    measure = Measure(1, 2)
    key = dict(nrmse=(0.5, 1.0), every=1)
    for _ in range(2):
        assert cache.cached(tmp_path / 'rows.json', key,
                            measure) == [dict(value=1)]
    file, = tmp_path.iterdir()
    assert file.name.startswith('rows_')
    assert json.loads(file.read_text()) == dict(
        key=dict(nrmse=[0.5, 1.0], every=1), measured=[dict(value=1)])


@pytest.mark.parametrize('other', [
    dict(nrmse=(0.5, ), every=1), dict(nrmse=(0.5, 1.0), every=5),
    dict(nrmse=(0.5, 1.0))
])
def test_another_key_is_measured_into_its_own_file(other, tmp_path):
    measure = Measure(1, 2)
    path = tmp_path / 'rows.json'
    key = dict(nrmse=(0.5, 1.0), every=1)
    assert cache.cached(path, key, measure) == [dict(value=1)]
    assert cache.cached(path, other, measure) == [dict(value=2)]
    assert cache.cached(path, key, measure) == [dict(value=1)]
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize('text', [
    '{"key": {"every": 1}, "measured": [{"val', '', '[]', '{}', '\x00\xff',
    '[{"value": 9}]', '{"key": {"every": 2}, "measured": [{"value": 9}]}'
])
def test_a_cut_or_foreign_file_is_measured_anew(text, tmp_path, capsys):
    path, key = tmp_path / 'rows.json', dict(every=1)
    file = cache.keyed(path, key)
    file.write_bytes(text.encode('latin-1'))
    assert cache.cached(path, key, Measure(1)) == [dict(value=1)]
    said = capsys.readouterr().out
    assert said.count('\n') == 1 and str(file) in said
    assert cache.cached(path, key, Measure()) == [dict(value=1)]


def test_nothing_is_kept_of_a_measurement_that_fails(tmp_path):

    def fail():
        raise RuntimeError('full disk')

    with pytest.raises(RuntimeError):
        cache.cached(tmp_path / 'rows.json', {}, fail)
    assert not list(tmp_path.iterdir())


def test_content_is_that_of_files_not_their_place(tmp_path):
    keys = []
    for name, weights in (('a', b'1'), ('b', b'1'), ('c', b'2')):
        folder = tmp_path / name
        folder.mkdir()
        (folder / 'host.pth').write_bytes(weights)
        (folder / 'task.py').write_text(f'load_from = "{folder}/host.pth"\n')
        keys.append(
            cache.content(
                Config(
                    dict(
                        work_dir=str(folder),
                        tasks=[dict(config=str(folder / 'task.py'))],
                        load_from=str(folder / 'host.pth'),
                        missing='nowhere.pth'))))
    assert keys[0] == keys[1] != keys[2]
    assert keys[0]['missing'] == 'nowhere.pth'
    # of the byte 1
    digest = '6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b'
    assert keys[0]['load_from'] == keys[0]['tasks'][0]['config'][
        'load_from'] == f'sha256:{digest}'


def test_a_file_that_changes_has_another_hash(tmp_path):
    file = tmp_path / 'a.pth'
    file.write_bytes(b'1')
    first = cache.file_hash(file)
    file.write_bytes(b'2')
    os.utime(file, ns=(1, 1))  # as if written within the clock's tick
    assert cache.file_hash(file) != first


def test_keyed_paths():
    path = cache.keyed(Path('x/clipped_scale1.5_seed0'), dict(a=1))
    assert path.parent == Path('x')
    assert path.name.startswith('clipped_scale1.5_seed0_')
    assert path == cache.keyed(Path('x/clipped_scale1.5_seed0'), dict(a=1))
    assert cache.keyed(Path('rows.json'), 1).suffix == '.json'


def test_a_folder_is_held_by_one_at_a_time(tmp_path):
    order = []

    def use(_):
        # another descriptor of the lock, as in another process
        with cache.alone(tmp_path / 'run'):
            order.append('in')
            time.sleep(0.1)
            order.append('out')

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(use, range(3)))
    assert order == ['in', 'out'] * 3
