"""Write the estimator of a FeatJND checkpoint to a small file of its own."""
import argparse

from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import load_checkpoint

from mmfeatjnd.apis import save_estimator
from mmfeatjnd.compat import register_trusted_checkpoint_loader
from mmfeatjnd.registry import MODELS


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='FeatJND config file path')
    parser.add_argument('checkpoint', help='FeatJND checkpoint file')
    parser.add_argument('out', help='estimator file to write')
    args = parser.parse_args()
    register_trusted_checkpoint_loader()
    cfg = Config.fromfile(args.config)
    init_default_scope(cfg.get('default_scope', 'mmengine'))
    if 'data_preprocessor' in cfg:
        cfg.model.setdefault('data_preprocessor', cfg.data_preprocessor)
    model = MODELS.build(cfg.model)
    load_checkpoint(model, args.checkpoint, map_location='cpu')
    save_estimator(model, args.out)
    print(f'Saved to {args.out}')


if __name__ == '__main__':
    main()
