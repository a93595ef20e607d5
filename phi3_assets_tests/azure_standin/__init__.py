"""A test bed for everything that talks to Azure: the real clients, real storage, and a stand-in for the rest.

A process of its own (`python -m phi3_assets_tests.azure_standin`) is one HTTP proxy. Clients that are told to use it
reach, by CONNECT and TLS, `management.azure.com`, `login.microsoftonline.com`, a key vault, the workspace's history
service and a storage account (Azurite); anything else is refused and noted as a leak. Nothing in the application
knows. Jobs run as real processes; control-plane bodies are judged by Microsoft's own schemas (`microsoft/`).

Tests use the fixtures `azure` and `fresh_azure` of `fixtures.py`.
"""
