"""Uploads a directory below a prefix with boto3, several files at once; large ones in parts, as boto3 does."""

import pathlib
from concurrent.futures import ThreadPoolExecutor

import boto3
from botocore.config import Config

import common

options = common.arguments("endpoint", "bucket", "prefix", "from")
root = pathlib.Path(getattr(options, "from"))
config = Config(retries={"mode": "standard", "max_attempts": 5}, max_pool_connections=32)
s3 = boto3.client("s3", endpoint_url=options.endpoint, config=config)


def upload(path):
    s3.upload_file(str(path), options.bucket, options.prefix + path.relative_to(root).as_posix())
    return path.stat().st_size


files = sorted(path for path in root.rglob("*") if path.is_file())
with ThreadPoolExecutor(4) as pool:
    sizes = list(pool.map(upload, files))
common.report(files=len(sizes), bytes=sum(sizes))
