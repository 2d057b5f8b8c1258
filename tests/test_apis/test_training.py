from mmengine.config import Config

from mmfeatjnd.apis import train_once, trained_checkpoint


def test_a_finished_run_is_not_trained_again(tmp_path):
    assert trained_checkpoint(tmp_path) is None
    (tmp_path / 'last_checkpoint').write_text('a/epoch_2.pth\n')
    assert trained_checkpoint(tmp_path) is None  # interrupted
    (tmp_path / 'done').touch()
    assert trained_checkpoint(tmp_path) == 'a/epoch_2.pth'
    # nothing in this config could be trained
    assert train_once(Config(dict(work_dir=str(tmp_path)))) == 'a/epoch_2.pth'
