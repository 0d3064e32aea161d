package http2

import "github.com/lateen-mesh/lateen/proxy/stats"

// Stats are the "http2.…" stats of one connection manager or cluster, named as Envoy
// names them. They are shared by all its connections.
type Stats struct {
	CookiesTotalBytesTooLarge, HeaderListSizeTooLarge                                   *stats.Counter
	DroppedHeadersWithUnderscores, GoAwaySent, HeaderOverflow, HeadersCbNoStream        *stats.Counter
	InboundEmptyFramesFlood, InboundPriorityFramesFlood, InboundWindowUpdateFramesFlood *stats.Counter
	KeepaliveTimeout, MetadataEmptyFrames, OutboundControlFlood, OutboundFlood          *stats.Counter
	RequestsRejectedWithUnderscores, RxMessagingError, RxReset, StreamRefusedErrors     *stats.Counter
	Trailers, TxFlushTimeout, TxReset                                                   *stats.Counter
	DeferredStreamClose, OutboundControlFramesActive, OutboundFramesActive              *stats.Gauge
	PendingSendBytes, StreamsActive                                                     *stats.Gauge
}

// NewStats returns the stats in scope: "http.<stat_prefix>." has no part in their
// names, a connection manager's scope is "" and a cluster's "cluster.<name>.".
func NewStats(scope *stats.Scope) *Stats {
	c := func(name string) *stats.Counter { return scope.Counter("http2." + name) }
	g := func(name string) *stats.Gauge { return scope.Gauge("http2." + name) }
	return &Stats{
		CookiesTotalBytesTooLarge: c("cookies_total_bytes_too_large"), HeaderListSizeTooLarge: c("header_list_size_too_large"),
		DroppedHeadersWithUnderscores: c("dropped_headers_with_underscores"), GoAwaySent: c("goaway_sent"),
		HeaderOverflow: c("header_overflow"), HeadersCbNoStream: c("headers_cb_no_stream"),
		InboundEmptyFramesFlood: c("inbound_empty_frames_flood"), InboundPriorityFramesFlood: c("inbound_priority_frames_flood"),
		InboundWindowUpdateFramesFlood: c("inbound_window_update_frames_flood"), KeepaliveTimeout: c("keepalive_timeout"),
		MetadataEmptyFrames: c("metadata_empty_frames"), OutboundControlFlood: c("outbound_control_flood"), OutboundFlood: c("outbound_flood"),
		RequestsRejectedWithUnderscores: c("requests_rejected_with_underscores_in_headers"), RxMessagingError: c("rx_messaging_error"),
		RxReset: c("rx_reset"), StreamRefusedErrors: c("stream_refused_errors"), Trailers: c("trailers"),
		TxFlushTimeout: c("tx_flush_timeout"), TxReset: c("tx_reset"),
		DeferredStreamClose: g("deferred_stream_close"), OutboundControlFramesActive: g("outbound_control_frames_active"),
		OutboundFramesActive: g("outbound_frames_active"), PendingSendBytes: g("pending_send_bytes"), StreamsActive: g("streams_active"),
	}
}
