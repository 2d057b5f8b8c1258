"""Downloads from a server that behaves badly."""
import hashlib
import http.server
import os
import re
import threading
import time

import pytest

from mmfeatjnd.utils import download
from mmfeatjnd.utils.download import MIRROR, cached_path, fetch

DATA = bytes(range(256)) * 1000
SHA = hashlib.sha256(DATA).hexdigest()
NAME = f'net-{SHA[:8]}.pth'


class Handler(http.server.BaseHTTPRequestHandler):
    """Does what ``server.plan`` says, answer by answer, then what is right."""

    def log_message(self, *args):
        pass

    def do_GET(self):
        server = self.server
        begin = 0
        if wanted := re.match(r'bytes=(\d+)-', self.headers.get('Range', '')):
            begin = int(wanted[1])
        server.asked.append((self.path, begin))
        how = server.plan.pop(0) if server.plan else 'right'
        if how in ('500', '404'):
            return self.send_error(int(how))
        data = server.data[begin:]
        self.send_response(206 if begin and server.ranges else 200)
        if not server.ranges:
            data = server.data
        extra = 1000 if how == 'lie' else 0
        self.send_header('Content-Length', str(len(data) + extra))
        self.end_headers()
        if how in ('truncate', 'stall'):
            data = data[:len(data) // 2]
        self.wfile.write(data)
        self.wfile.flush()
        if how == 'stall':
            time.sleep(2.5)
        self.close_connection = True


@pytest.fixture
def server(tmp_path, monkeypatch):
    web = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    web.plan, web.asked, web.data, web.ranges = [], [], DATA, True
    thread = threading.Thread(target=web.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv('no_proxy', '127.0.0.1')
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'cache'))
    monkeypatch.setattr(download, 'TIMEOUT', 1)
    web.url = f'http://127.0.0.1:{web.server_port}/v1/{NAME}'
    yield web
    web.shutdown()
    web.server_close()
    thread.join()


def kept(server):
    """Names of what is in the cache."""
    return sorted(os.listdir(cached_path(server.url).parent))


def test_what_is_whole_is_kept(server):
    for _ in range(2):  # the second time from the cache
        path = fetch(server.url)
        assert path == cached_path(server.url) and path.read_bytes() == DATA
    assert server.asked == [(f'/v1/{NAME}', 0)]
    assert kept(server) == [NAME]
    assert fetch(server.url, SHA) == path


@pytest.mark.parametrize('plan', [
    ['truncate'], ['stall'], ['500', '500'], ['truncate', '500', 'stall']])
def test_a_download_goes_on(server, plan):
    server.plan = list(plan)
    assert fetch(server.url).read_bytes() == DATA
    # from where it broke off
    begins = [begin for _, begin in server.asked]
    assert len(begins) == len(plan) + 1
    assert begins[-1] > 0 or '500' in plan
    assert kept(server) == [NAME]


def test_a_server_that_always_begins_anew(server):
    server.plan, server.ranges = ['truncate'], False
    assert fetch(server.url).read_bytes() == DATA


def test_another_process_goes_on(server):
    server.plan = ['truncate'] + ['500'] * 9
    with pytest.raises(OSError, match='500'):
        fetch(server.url)
    assert kept(server) == [f'{NAME}.part']
    server.plan, server.asked = [], []
    assert fetch(server.url).read_bytes() == DATA
    (_, begin), = server.asked  # whole blocks of what had come
    assert 0 < begin <= len(DATA) // 2


@pytest.mark.parametrize('plan, reason', [
    (['lie'] * 9, 'ConnectionError|ChunkedEncodingError|_Truncated'),
    (['404'], '404'), (['500'] * 9, '500')])
def test_what_cannot_be_had(server, plan, reason):
    server.plan = plan
    with pytest.raises(OSError, match=reason) as error:
        fetch(server.url)
    assert server.url in str(error.value)
    assert NAME not in kept(server)


def test_another_file_is_refused(server):
    server.data = DATA[:-1] + b'x'
    with pytest.raises(OSError, match=f'not {SHA[:8]}'):
        fetch(server.url)
    assert kept(server) == []
    server.data = DATA
    with pytest.raises(OSError, match='hash|SHA'):
        fetch(server.url, 'f' * 64)
    assert NAME not in kept(server)


def test_mirrors(server, tmp_path, monkeypatch):
    gone = 'http://127.0.0.1:9/v1/' + NAME
    monkeypatch.setenv(MIRROR, server.url.partition('/v1')[0])
    assert fetch(gone).read_bytes() == DATA
    # a folder
    cached_path(gone).unlink()
    folder = tmp_path / 'copies'
    folder.mkdir()
    monkeypatch.setenv(MIRROR, str(folder))
    with pytest.raises(OSError, match='ConnectionError'):
        fetch(gone)
    (folder / NAME).write_bytes(DATA)
    assert fetch(gone) == folder / NAME
    (folder / NAME).write_bytes(b'other')
    with pytest.raises(OSError, match=f'not {SHA[:8]}'):
        fetch(gone)
