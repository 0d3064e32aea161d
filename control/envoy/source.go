package envoy

import (
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/types/known/durationpb"
)

// overADS is where a proxy takes a resource from that another one names.
func overADS() *corev3.ConfigSource {
	return &corev3.ConfigSource{
		ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}},
		ResourceApiVersion:    corev3.ApiVersion_V3,
	}
}

// awaitedADS is overADS for what the proxy waits for however long it takes.
func awaitedADS() *corev3.ConfigSource {
	source := overADS()
	source.InitialFetchTimeout = durationpb.New(0)
	return source
}
