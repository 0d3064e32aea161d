package config

import (
	"maps"

	"google.golang.org/protobuf/proto"
	meshconfig "istio.io/api/mesh/v1alpha1"
)

// OverlayProxyConfig reads the YAML of a ProxyConfig, as in a pod's annotation
// proxy.istio.io/config, over base, which it leaves as it is. Entries of proxyMetadata are
// added to those of base; of other lists and maps the text's count. With errors the result
// is a copy of base.
func OverlayProxyConfig(base *meshconfig.ProxyConfig, text []byte) (*meshconfig.ProxyConfig, []Problem) {
	over := proto.CloneOf(base)
	problems := decodeMessage("", text, over)
	if HasErrors(problems) {
		return proto.CloneOf(base), problems
	}
	metadata := maps.Clone(base.GetProxyMetadata())
	if metadata == nil {
		metadata = map[string]string{}
	}
	maps.Copy(metadata, over.GetProxyMetadata())
	if len(metadata) > 0 {
		over.ProxyMetadata = metadata
	}
	return over, problems
}
