package identity

// Clients are the OAuth clients that may authenticate at the token endpoint.
type Clients struct{}
