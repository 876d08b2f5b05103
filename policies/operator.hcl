# A platform team: it manages virtual keys and sees which provider keys there
# are (never their secrets), but can't change those.

path "portkey/roles/*" {
  capabilities = ["create", "read", "update", "patch", "delete", "list"]
}

path "portkey/roles" {
  capabilities = ["list"]
}

path "portkey/keys/*" {
  capabilities = ["read", "list"]
}

path "portkey/keys" {
  capabilities = ["list"]
}

path "portkey/providers/*" {
  capabilities = ["read", "list"]
}

path "portkey/providers" {
  capabilities = ["list"]
}

path "portkey/status" {
  capabilities = ["read"]
}

# What was spent, and what models cost.
path "portkey/usage/*" {
  capabilities = ["read"]
}

path "portkey/usage/+/reset" {
  capabilities = ["update"]
}

path "portkey/usage/+/write-off" {
  capabilities = ["update"]
}

path "portkey/usage" {
  capabilities = ["read", "list"]
}

path "portkey/prices/*" {
  capabilities = ["read", "list"]
}

path "portkey/metrics" {
  capabilities = ["read"]
}
