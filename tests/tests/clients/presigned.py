"""Presigned PUT and GET by boto3 and the MinIO SDK, used with plain HTTP; changed ones must be refused."""

import datetime
import urllib.error
import urllib.parse
import urllib.request

import boto3
from botocore.config import Config
from minio import Minio

import common

options = common.arguments("endpoint", "bucket")
access, secret = common.keys()
s3 = boto3.client("s3", endpoint_url=options.endpoint, config=Config(signature_version="s3v4"))
host = urllib.parse.urlsplit(options.endpoint).netloc
minio = Minio(host, access_key=access, secret_key=secret, secure=False, region=common.region())
hour = datetime.timedelta(hours=1)


def call(url, method="GET", data=None):
    # Without a type urllib claims that the bytes are a form.
    headers = {"Content-Type": "application/octet-stream"} if data else {}
    request = urllib.request.Request(url, data=data, method=method, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def boto(operation, key):
    return s3.generate_presigned_url(operation, Params={"Bucket": options.bucket, "Key": key}, ExpiresIn=3600)


signers = {
    "boto3 ä+": (lambda key: boto("put_object", key), lambda key: boto("get_object", key)),
    "minio %20": (
        lambda key: minio.presigned_put_object(options.bucket, key, expires=hour),
        lambda key: minio.presigned_get_object(options.bucket, key, expires=hour),
    ),
}
for name, (put, get) in signers.items():
    key, data = f"presigned/{name}.bin", common.body(name, 300_001)
    status, text = call(put(key), "PUT", data)
    common.expect(status == 200, f"200 for PUT of {key}, not {status} {text}")
    status, back = call(get(key))
    common.expect(status == 200 and back == data, f"the bytes of {key}, not {status}")
    status, text = call(get(key).replace("presigned/", "presigned/x", 1))
    common.expect(status == 403 and b"SignatureDoesNotMatch" in text, f"403 for another key, not {status} {text}")
    status, text = call(get(key), "DELETE")
    common.expect(status == 403, f"403 for another method, not {status} {text}")
common.report(signers=len(signers))
