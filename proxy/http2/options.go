package http2

import (
	"errors"
	"fmt"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/lateen-mesh/lateen/proxy/xds"
)

// fields of Http2ProtocolOptions that are understood. The codec is our own, obsolete text
// is refused always, and heads are compressed without Huffman codes.
var fields = []protoreflect.Name{
	"hpack_table_size", "max_concurrent_streams", "initial_stream_window_size", "initial_connection_window_size", "allow_connect",
	"allow_metadata", "max_outbound_frames", "max_outbound_control_frames", "max_consecutive_inbound_frames_with_empty_payload",
	"max_inbound_priority_frames_per_stream", "max_inbound_window_update_frames_per_data_frame_sent",
	"stream_error_on_invalid_http_messaging", "override_stream_error_on_invalid_http_message", "connection_keepalive", "use_oghttp2_codec",
	"enable_huffman_encoding",
}

// Decode compiles Http2ProtocolOptions, of a connection manager or of a cluster; nil is
// the default. Errors begin with the field.
func Decode(o *corev3.Http2ProtocolOptions) (Options, error) {
	if o == nil {
		return Options{}, nil
	}
	if err := xds.Only(o, fields...); err != nil {
		return Options{}, err
	}
	if o.GetAllowMetadata() {
		return Options{}, errors.New("allow_metadata: true: not supported")
	}
	out := Options{AllowConnect: o.GetAllowConnect(),
		Lenient: o.GetStreamErrorOnInvalidHttpMessaging() || o.GetOverrideStreamErrorOnInvalidHttpMessage().GetValue()}
	if t := o.GetHpackTableSize(); t != nil {
		if out.HeaderTable = int(t.GetValue()); out.HeaderTable == 0 {
			out.HeaderTable = -1
		}
	}
	for _, f := range []struct {
		name     string
		value    *wrapperspb.UInt32Value
		min, max uint32
		out      *uint32
	}{
		{"max_concurrent_streams", o.GetMaxConcurrentStreams(), 1, 1<<31 - 1, &out.MaxConcurrentStreams},
		{"initial_stream_window_size", o.GetInitialStreamWindowSize(), 65535, 1<<31 - 1, &out.InitialStreamWindow},
		{"initial_connection_window_size", o.GetInitialConnectionWindowSize(), 65535, 1<<31 - 1, &out.InitialConnectionWindow},
	} {
		if f.value == nil {
			continue
		}
		if v := f.value.GetValue(); v < f.min || v > f.max {
			return Options{}, fmt.Errorf("%s: must be %d to %d, got %d", f.name, f.min, f.max, v)
		}
		*f.out = f.value.GetValue()
	}
	for _, f := range []struct {
		value *wrapperspb.UInt32Value
		out   *int
	}{
		{o.GetMaxOutboundFrames(), &out.MaxOutboundFrames}, {o.GetMaxOutboundControlFrames(), &out.MaxOutboundControlFrames},
		{o.GetMaxConsecutiveInboundFramesWithEmptyPayload(), &out.MaxEmptyFrames},
		{o.GetMaxInboundPriorityFramesPerStream(), &out.MaxPriorityFrames},
		{o.GetMaxInboundWindowUpdateFramesPerDataFrameSent(), &out.MaxWindowUpdates},
	} {
		if f.value == nil {
			continue
		}
		if *f.out = int(f.value.GetValue()); *f.out == 0 {
			*f.out = -1
		}
	}
	err := keepAlive(o.GetConnectionKeepalive(), &out)
	return out, err
}

func keepAlive(k *corev3.KeepaliveSettings, out *Options) error {
	if k == nil {
		return nil
	}
	out.KeepAlive, out.KeepAliveTimeout = k.GetInterval().AsDuration(), k.GetTimeout().AsDuration()
	out.IdleKeepAlive = k.GetConnectionIdleInterval().AsDuration()
	out.KeepAliveJitter = 15
	if j := k.GetIntervalJitter(); j != nil {
		out.KeepAliveJitter = j.GetValue()
	}
	switch {
	case out.KeepAlive != 0 && out.KeepAlive < time.Millisecond:
		return errors.New("connection_keepalive.interval: must be 1ms or more")
	case out.KeepAliveTimeout < time.Millisecond:
		return errors.New("connection_keepalive.timeout: must be 1ms or more")
	}
	return nil
}
