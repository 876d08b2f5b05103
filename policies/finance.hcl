# People who watch the spending: what every virtual key used and cost, and at
# which prices. They can't use a virtual key, see a provider key or set a price.

path "portkey/usage" {
  capabilities = ["read", "list"]
}

path "portkey/usage/*" {
  capabilities = ["read", "list"]
}

path "portkey/prices" {
  capabilities = ["list"]
}

path "portkey/prices/*" {
  capabilities = ["read", "list"]
}
