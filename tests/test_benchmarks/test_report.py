"""The report: that it is up to date, and what it says of a result."""
import json
import re

import common
import pytest
import report
import report_readme

NUMBER = r'\d+\.\d+|\d+ %'


def test_documents_are_what_the_results_give():
    assert report.DOC.read_text() == report.document(plots=False)
    assert report.README.read_text() == report.readme()


def test_pictures_are_there():
    for file in (report.DOC, report.README):
        for picture in re.findall(r'\]\(([^)]*\.png)\)', file.read_text()):
            assert (file.parent / picture).is_file(), picture


@pytest.mark.parametrize('name, title', [
    ('featjnd', 'What was published before, and why it changed'),
    ('quantization', 'What we found'), ('dmv_jnd', 'What we found')])
def test_findings_name_no_figure_that_the_report_lacks(name, title):
    text = (report.DOC.parent / f'{name}.md').read_text()
    findings = text.partition(f'## {title}\n')[2].partition('\n## ')[0]
    measured = set(re.findall(NUMBER, report.DOC.read_text()))
    assert findings
    assert set(re.findall(NUMBER, findings)) <= measured


def row(name, setting, value, seed=0, **kwargs):
    return dict(
        dict(
            distortion=name,
            nrmse=setting,
            nrmse_measured=setting,
            participation_ratio=0.3,
            seed=seed,
            metrics={'mIoU': value, 'mIoU_undefined': None}), **kwargs)


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write a result that the report finds."""
    monkeypatch.setattr(report, 'RESULTS', tmp_path)

    def write(name, rows, **kwargs):
        result = dict(
            dict(
                claim='Some claim.',
                command='make it',
                host='some-host',
                split_point='backbone',
                dataset='made up',
                train_split='train, 7 images',
                estimator_draws=25600,
                test_split='test, all 8 images',
                clean={'mIoU': 80.0, 'coco/AR_l': -1.0},
                reduced=False,
                protocol=common.PROTOCOL,
                versions=dict(mmfeatjnd='9'),
                device='cpu',
                rows=rows), **kwargs)
        result = {k: v for k, v in result.items() if v is not None}
        (tmp_path / f'{name}.json').write_text(json.dumps(result))

    return write


CURVE = [row('gaussian', 0.5, 76.0), row('featjnd', 0.5, 80.4)]


def head(name):
    return '\n'.join(report.head(report.load(name), 'Title'))


def test_what_the_estimators_saw(write):
    write('featjnd_cifar10', CURVE, host_checkpoint='sha256:' + 64 * 'a')
    assert 'Host `some-host` (sha256:aaaaaaaaaaaa), split `backbone`. Host ' \
        'trained on train, 7 images; each estimator on 25,600 draws of its ' \
        'training pictures. Tested on made up, test, all 8 images; seeds ' \
        '0. `make it` on cpu; mmfeatjnd 9.' in head('featjnd_cifar10')
    write('featjnd_cifar10', CURVE, estimator_draws=None, reduced=True,
          train_split='that of the stock weights')
    text = head('featjnd_cifar10')
    assert 'how many images the estimators drew is not recorded' in text
    assert 'Host with its stock weights;' in text
    assert '**Reduced**: less than the protocol asks. `make it`' in text


@pytest.mark.parametrize('protocol', [None, 1, 2, common.PROTOCOL])
def test_an_earlier_protocol_is_marked(protocol, write):
    write('quantization_cifar10', CURVE, protocol=protocol)
    old = protocol != common.PROTOCOL
    text = head('quantization_cifar10')
    assert ('Measured by an earlier protocol' in text) == old
    assert ('Claim: Some claim.' in text) == (not old)


def test_every_earlier_protocol_has_its_words():
    assert set(report.FORMER) == set(range(1, common.PROTOCOL))


def test_figures_of_the_signed_map_are_withdrawn(write):
    write('featjnd_cifar10', CURVE, protocol=2)
    text = report.document(plots=False)
    assert 'stands here:\nmade up.' in text
    assert '80.4' not in text and 'some-host' not in text
    tables = report_readme.tables(
        dict(featjnd=[report.load('featjnd_cifar10')], quantization=[],
             dmv_jnd=[]), report.task_metrics, report.outdated)
    assert tables == ''


def test_without_any_result(write):
    text = report.document(plots=False)
    assert '## What was published before' in text
    assert 'Still to be measured' not in text
    assert report_readme.BEGIN in report.readme()


def test_what_is_not_defined_says_so(write):
    write('featjnd_cifar10', CURVE)
    assert '| `mIoU` | 80 |\n| `coco/AR_l` | not defined |' in head(
        'featjnd_cifar10')


@pytest.mark.parametrize('row', [
    dict(policy='uniform', split='backbone'), dict(policy='one-step'),
    dict(policy='webp', place='full'), dict(distortion='uniform-noise'),
    dict(policy='featjnd', mean_bits=0.5)
])
def test_published_names_can_be_read_back(row):
    published, = common.renamed([row])
    assert published != row
    assert common.renamed([published], back=True) == [row]


def test_tables_go_between_the_marks():
    text = f'a\n{report_readme.BEGIN}old\n{report_readme.END}b\n'
    once = report_readme.insert(text, 'new')
    assert once.startswith('a\n') and once.endswith('b\n')
    assert 'new' in once and 'old' not in once
    assert report_readme.insert(once, 'new') == once
    with pytest.raises(ValueError, match='begin'):
        report_readme.insert('a', 'new')


def test_published_rows_keep_their_names_and_keys():
    ours = [dict(policy='one-step', bits=None, mean_bits=0.5, scale=2.0)]
    theirs = [dict(policy='uniform', bits=0.5, scale=2.0)]
    assert common.renamed(ours) == theirs
    assert common.renamed(theirs, back=True) == [
        dict(policy='one-step', mean_bits=0.5, scale=2.0)]
