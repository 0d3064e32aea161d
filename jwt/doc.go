// Package jwt reads JSON Web Tokens and verifies them with JSON Web Keys, as Envoy does:
// what it lets pass passes, and what it refuses is refused with its words.
//
// Parse reads a token, ParseKeys a set of keys, Keys.Verify puts the two together. Nothing of
// a token may be believed before Verify has said OK; time, audience, issuer and subject are for
// the caller to compare. All values are safe for concurrent use. The signatures are those of
// the standard library: RS, PS, ES, HS with 256, 384, 512, and EdDSA with Ed25519.
package jwt
