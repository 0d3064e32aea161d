// Package crds holds the CustomResourceDefinitions of Istio's fifteen kinds, as a
// Kubernetes API server takes them: names, short names, columns and served versions
// are those that users of Istio know, the schemas accept what Istio's own accept
// and refuse what they refuse, with the same messages.
//
// Two things are ours. Every field of a spec may be written by its name in the
// .proto files too (sni_hosts beside sniHosts): the server neither refuses nor
// drops it. And descriptions are short and stand at the top of each kind only,
// because a server keeps every schema in memory, once per version.
//
// crds.yaml is made by the program in gen; a test there tells when the two differ.
package crds

import _ "embed"

//go:generate go run ./gen -o crds.yaml

//go:embed crds.yaml
var all []byte

// All returns the definitions as one YAML stream, good for `kubectl apply -f -`.
// The caller must not change it.
func All() []byte { return all }
