"""Downloads every object below a prefix with the MinIO SDK and compares what it says of each with what arrived."""

import urllib.parse
from concurrent.futures import ThreadPoolExecutor

from minio import Minio

import common

options = common.arguments("endpoint", "bucket", "prefix", "into")
access, secret = common.keys()
host = urllib.parse.urlsplit(options.endpoint).netloc
client = Minio(host, access_key=access, secret_key=secret, secure=False, region=common.region())


def download(item):
    path = common.target(options.into, options.prefix, item.object_name)
    client.fget_object(options.bucket, item.object_name, str(path))
    common.expect(path.stat().st_size == item.size, f"{item.object_name} of {item.size} bytes")
    return item.size


items = list(client.list_objects(options.bucket, prefix=options.prefix, recursive=True))
with ThreadPoolExecutor(8) as pool:
    sizes = list(pool.map(download, items))
common.report(files=len(sizes), bytes=sum(sizes))
