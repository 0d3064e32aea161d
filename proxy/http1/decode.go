package http1

import (
	"errors"
	"fmt"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	preservev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/header_formatters/preserve_case/v3"

	"github.com/lateen-mesh/lateen/proxy/match"
	"github.com/lateen-mesh/lateen/proxy/xds"
)

// Options are http_protocol_options, of either end. The zero value is Envoy's default.
type Options struct {
	AcceptHTTP10  bool   // else HTTP/1.0 is answered with 426
	DefaultHost   string // of HTTP/1.0 requests without one
	Case          Case   // how names of fields are written
	ForwardReason bool   // answers pass their reason phrase on
	Trailers      bool   // enable_trailers
	ChunkedLength bool   // content-length beside transfer-encoding is dropped, not refused
	StreamErrors  bool   // a refused request does not end its connection where it need not
	FullURL       bool   // requests are sent with scheme and authority in their target
	CustomMethods bool   // any method that is a token
	KeepAbsolute  bool   // an absolute target is left as it is (allow_absolute_url: false)
	// IgnoreUpgrade are upgrades that requests may ask for as if they did not.
	IgnoreUpgrade []match.String
}

// A Case is how names of fields are written.
type Case uint8

// The cases.
const (
	LowerCase Case = iota
	AsRead         // preserve_case
	ProperCase
)

// Decode compiles http_protocol_options; nil is the default. Errors name the field.
func Decode(pb *corev3.Http1ProtocolOptions) (o Options, err error) {
	// There is but one parser.
	if err := xds.Only(pb, "accept_http_10", "default_host_for_http_10", "header_key_format", "enable_trailers", "allow_chunked_length",
		"override_stream_error_on_invalid_http_message", "send_fully_qualified_url", "use_balsa_parser", "allow_custom_methods",
		"allow_absolute_url", "ignore_http_11_upgrade"); err != nil {
		return o, err
	}
	o = Options{
		AcceptHTTP10: pb.GetAcceptHttp_10(), DefaultHost: pb.GetDefaultHostForHttp_10(), Trailers: pb.GetEnableTrailers(),
		ChunkedLength: pb.GetAllowChunkedLength(), StreamErrors: pb.GetOverrideStreamErrorOnInvalidHttpMessage().GetValue(),
		FullURL: pb.GetSendFullyQualifiedUrl(), CustomMethods: pb.GetAllowCustomMethods(),
		KeepAbsolute: pb.GetAllowAbsoluteUrl() != nil && !pb.GetAllowAbsoluteUrl().GetValue(),
	}
	for i, m := range pb.GetIgnoreHttp_11Upgrade() {
		s, err := match.NewString(m)
		if err != nil {
			return o, fmt.Errorf("ignore_http_11_upgrade[%d].%w", i, err)
		}
		o.IgnoreUpgrade = append(o.IgnoreUpgrade, s)
	}
	if f := pb.GetHeaderKeyFormat(); f != nil {
		if err := o.decodeCase(f); err != nil {
			return o, fmt.Errorf("header_key_format.%w", err)
		}
	}
	return o, nil
}

func (o *Options) decodeCase(f *corev3.Http1ProtocolOptions_HeaderKeyFormat) error {
	switch {
	case f.GetProperCaseWords() != nil:
		o.Case = ProperCase
		return nil
	case f.GetStatefulFormatter() == nil:
		return errors.New("header_format: value is required")
	}
	x := f.GetStatefulFormatter()
	var p preservev3.PreserveCaseFormatterConfig
	if err := x.GetTypedConfig().UnmarshalTo(&p); err != nil {
		return fmt.Errorf("stateful_formatter: %s (%s) is not supported", x.GetName(), x.GetTypedConfig().GetTypeUrl())
	}
	if err := xds.Only(&p, "forward_reason_phrase"); err != nil {
		return fmt.Errorf("stateful_formatter.%w", err)
	}
	o.Case, o.ForwardReason = AsRead, p.GetForwardReasonPhrase()
	return nil
}
