"""Telling people: email, Slack, Discord, PagerDuty, webhooks.

Only its settings are here yet; enabling a channel is refused when settings load.
"""
