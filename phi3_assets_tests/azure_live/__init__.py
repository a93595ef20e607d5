"""What is asked of a real workspace, and of the stand-in in the same words.

    export PHI3_AZURE_SUBSCRIPTION_ID=... PHI3_AZURE_RESOURCE_GROUP=... PHI3_AZURE_WORKSPACE=... PHI3_AZURE_COMPUTE=...
    pytest -m azure_live

runs jobs on that compute, and costs money: some minutes of one node, and the building of an image the first time. What
it puts into the datastore stands below a prefix of its own, and is removed at the end.
"""
