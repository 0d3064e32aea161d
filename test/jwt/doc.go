// Package jwt compares the proxy's JWT filter with a real Envoy's, request by request: both run
// from one configuration, get the same bytes, and must answer and forward the same.
package jwt
