"""Makes two users and two roles at the AWS that TEST_STS_ENDPOINT names, has it check signatures and
permissions from then on, and prints what it made as JSON."""

import json
import os
import urllib.request

import boto3

endpoint = os.environ["TEST_STS_ENDPOINT"]


def moto(path, body):
    plain = {"Content-Type": "text/plain"}
    request = urllib.request.Request(f"{endpoint}/moto-api/{path}", body, plain, method="POST")
    urllib.request.urlopen(request).read()


moto("reset-auth", b"10000")
moto("reset", b"")
iam = boto3.client(
    "iam",
    endpoint_url=endpoint,
    region_name="us-east-1",
    aws_access_key_id="test",
    aws_secret_access_key="test",
)
allowed = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole", "Resource": "*"}],
}


def user(name):
    iam.create_user(UserName=name)
    iam.put_user_policy(UserName=name, PolicyName="takes", PolicyDocument=json.dumps(allowed))
    key = iam.create_access_key(UserName=name)["AccessKey"]
    return {"access_key_id": key["AccessKeyId"], "secret_access_key": key["SecretAccessKey"]}


def role(name, **condition):
    trusts = {"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole", **condition}
    trust = json.dumps({"Version": "2012-10-17", "Statement": [trusts]})
    return iam.create_role(RoleName=name, AssumeRolePolicyDocument=trust)["Role"]["Arn"]


made = {
    "broker": user("broker"),
    "customer": user("customer"),
    "role_arn": role("models", Condition={"StringEquals": {"sts:ExternalId": "customer-42"}}),
    "own_role_arn": role("own-models"),
}
moto("reset-auth", b"0")
print(json.dumps(made))
