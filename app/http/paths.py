"""Paths that are known before there is a router."""

import re

RESERVATIONS = "/v1/sales/{sale_id}/reservations"
SALE_RESERVATIONS = re.compile(r"/v1/sales/([A-Za-z0-9._~-]{1,64})/reservations")
"""The same, with the sale's id as its group."""
PROBES = frozenset({"/livez", "/readyz", "/metrics"})
"""For load balancers and monitors, often from one address. They are always served: an overloaded process must
be seen to be one, and a balancer that is told 429 would take a healthy one out."""
