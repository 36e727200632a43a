"""aioboto3's round: many small objects and one in parts, written through one node and read through another."""

import asyncio
import io

import aioboto3

import common

options = common.arguments("write", "read", "bucket")
COUNT = 200


async def main():
    session = aioboto3.Session()
    connect = lambda endpoint: session.client("s3", endpoint_url=endpoint)
    async with connect(options.write) as writer, connect(options.read) as reader:
        gate = asyncio.Semaphore(16)

        async def round_trip(index):
            key, data = f"aio/{index:04}", common.body(str(index), 1 + index * 97)
            async with gate:
                await writer.put_object(Bucket=options.bucket, Key=key, Body=data)
                answer = await reader.get_object(Bucket=options.bucket, Key=key)
                common.expect(await answer["Body"].read() == data, f"the bytes of {key}")

        await asyncio.gather(*(round_trip(index) for index in range(COUNT)))
        large = common.body("large", 20 * 1024 * 1024 + 1)
        await writer.upload_fileobj(io.BytesIO(large), options.bucket, "aio/large")
        back = io.BytesIO()
        await reader.download_fileobj(options.bucket, "aio/large", back)
        common.expect(back.getvalue() == large, "the bytes of aio/large")
        keys = []
        async for page in reader.get_paginator("list_objects_v2").paginate(
            Bucket=options.bucket, Prefix="aio/", PaginationConfig={"PageSize": 50}
        ):
            keys += [item["Key"] for item in page["Contents"]]
        common.expect(keys == [f"aio/{index:04}" for index in range(COUNT)] + ["aio/large"], "every key, in order")
        gone = await writer.delete_objects(
            Bucket=options.bucket, Delete={"Objects": [{"Key": key} for key in keys], "Quiet": True}
        )
        common.expect(not gone.get("Errors"), f"no errors, not {gone.get('Errors')}")
        left = await reader.list_objects_v2(Bucket=options.bucket, Prefix="aio/")
        common.expect(left["KeyCount"] == 0, "nothing left")
    common.report(objects=COUNT + 1)


asyncio.run(main())
