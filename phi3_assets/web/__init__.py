"""`phi3 web`: the pages of a home on this computer: products and their releases, reports, decisions, lineage, chat.

`server` says who may reach them; `app` puts the pages together; `overview` reads what the first page shows. A page is
found by the identity of what it is about, never by a path. Links to them are made by `phi3_assets.core.web_address`.
"""
