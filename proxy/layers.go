package proxy

import (
	"fmt"

	bootstrappb "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	runtimepb "github.com/envoyproxy/go-control-plane/envoy/service/runtime/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/lateen-mesh/lateen/proxy/runtime"
	"github.com/lateen-mesh/lateen/proxy/xds"
	"github.com/lateen-mesh/lateen/wellknown"
)

// checkRuntime reads the layers of the bootstrap.
func (b *Bootstrap) checkRuntime() (err error) {
	b.runtime, err = runtime.New(b.Proto.GetLayeredRuntime(), b.Proto.GetNode().GetCluster())
	return err
}

// connectionLimit is the limit of a listener's connections, 0 for none. It is asked for
// when a listener comes.
func (b *Bootstrap) connectionLimit(listener string) int64 {
	return int64(min(b.runtime.Whole("envoy.resource_limits.listener."+listener+".connection_limit", 0), 1<<62))
}

// subscribeLayers asks for the layers that a management server sends and returns what waits
// for the first of each.
func (s *server) subscribeLayers() ([]<-chan struct{}, error) {
	var all []<-chan struct{}
	for i, l := range s.boot.Proto.GetLayeredRuntime().GetLayers() {
		if l.GetRtdsLayer() == nil {
			continue
		}
		one, err := s.subscribeLayer(l)
		if err != nil {
			return nil, fmt.Errorf("layered_runtime: layers[%d] %q: %w", i, l.GetName(), err)
		}
		all = append(all, one)
	}
	return all, nil
}

func (s *server) subscribeLayer(l *bootstrappb.RuntimeLayer) (<-chan struct{}, error) {
	from := l.GetRtdsLayer()
	client, err := s.source(wellknown.RuntimeType)(from.GetRtdsConfig())
	if err != nil {
		return nil, fmt.Errorf("rtds_layer.rtds_config: %w", err)
	}
	t := xds.Type[*runtimepb.Runtime]{URL: wellknown.RuntimeType, FetchTimeout: xds.FetchTimeout(from.GetRtdsConfig()),
		Decode: func(_ string, body *anypb.Any) (*runtimepb.Runtime, error) {
			r := &runtimepb.Runtime{}
			if err := proto.Unmarshal(body.GetValue(), r); err != nil {
				return nil, err
			}
			return r, runtime.Check(r.GetLayer())
		}}
	first, done := make(chan struct{}), false
	xds.Subscribe(client, t, from.GetName(), func(r *runtimepb.Runtime, present bool) {
		if present || done { // one that has gone leaves its values behind no longer
			_ = s.boot.runtime.Replace(l.GetName(), r.GetLayer()) // it was checked
		}
		if !done {
			done = true
			close(first)
		}
	})
	return first, nil
}
