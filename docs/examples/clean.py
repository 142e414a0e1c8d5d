"""Functions for --call: each takes a record and returns what becomes of it."""


def clean(user):
    """Tidy one record; None drops it."""
    if not user.get("email"):
        return None
    return {**user, "name": user["name"].strip().title(), "email": user["email"].lower()}


def tags(user, context):
    """Make several records of one. A second parameter gets where the record comes from."""
    for tag in user["tags"]:
        yield {"user": user["id"], "tag": tag, "source": f"{context.file}#{context.record}"}
