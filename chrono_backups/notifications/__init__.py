"""Telling people: what is wrong, once; that it still is, now and then; that it is well again.

What is observed (findings, failed runs) becomes *incidents*; what changes in an incident becomes a *message*; routes
choose the channels, and the *outbox* keeps each message on this machine's disk until every one of them took it. All of
that is one transaction, so that a crash loses nothing and opens nothing twice.

- Delivery is at least once. A crash after a channel took a message and before that was noted sends it again: PagerDuty
  joins the two by their key, mail by its Message-ID, a webhook's receiver by ``X-Chrono-Delivery``.
- Nothing here fails a backup or holds one up: a channel that is down costs a finding, reported on the others.
- No message holds a secret: what the sender knows as one is masked before it is stored.
"""
