// Package envoy spells ir values as Envoy v3 resources. Every function is pure:
// the resource depends on the ir value and on nothing else, so resources may be
// cached by the value's hash. Choices are not made here; where Envoy has several
// ways to say one thing, the one that Istio's control plane uses is taken, so
// that configuration dumps read alike.
package envoy
