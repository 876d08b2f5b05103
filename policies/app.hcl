# An app of team A: it may use the virtual key "team-a", and nothing else.

# POST needs "update" (chat, embeddings, responses, …), GET "read" (models).
path "portkey/proxy/team-a/v1/*" {
  capabilities = ["read", "update"]
}

# `vault write portkey/proxy/team-a …`, for people.
path "portkey/proxy/team-a" {
  capabilities = ["update"]
}
