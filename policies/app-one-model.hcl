# Vault itself limits the model, whatever the virtual key allows: a request must
# name this one. A request without a model passes allowed_parameters, hence
# required_parameters.
path "portkey/proxy/team-a/v1/chat/completions" {
  capabilities        = ["update"]
  required_parameters = ["model"]
  # OpenRouter's list of fallbacks.
  denied_parameters = {
    "models" = []
  }
  allowed_parameters = {
    "model" = ["gpt-4o-mini", "sandbox-small"]
    "*"     = []
  }
}
