"""Downloads every object below a prefix with boto3, several at once; large ones in ranges, as boto3 does."""

from concurrent.futures import ThreadPoolExecutor

import boto3
from botocore.config import Config

import common

options = common.arguments("endpoint", "bucket", "prefix", "into")
config = Config(retries={"mode": "standard", "max_attempts": 5}, max_pool_connections=32)
s3 = boto3.client("s3", endpoint_url=options.endpoint, config=config)


def download(item):
    path = common.target(options.into, options.prefix, item["Key"])
    s3.download_file(options.bucket, item["Key"], str(path))
    return item["Size"]


pages = s3.get_paginator("list_objects_v2").paginate(Bucket=options.bucket, Prefix=options.prefix)
items = [item for page in pages for item in page.get("Contents", [])]
with ThreadPoolExecutor(8) as pool:
    sizes = list(pool.map(download, items))
common.report(files=len(sizes), bytes=sum(sizes))
