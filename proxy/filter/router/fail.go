package router

import (
	"errors"
	"strconv"
	"time"

	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/streaminfo"
	"github.com/lateen-mesh/lateen/wellknown"
)

// failed judges an attempt that yielded no answer; true asks for another one.
func (k *call) failed(err error) bool {
	s := k.s
	repeat := k.mayRepeat()
	k.dropFailed()
	late, whole := k.timedOut(err)
	var reset *http.Reset
	switch {
	case s.Left() || errors.Is(err, errLeft):
		k.gone()
		return false
	case errors.Is(err, errNoneHealthy):
		k.reply(http.Reply{Status: 503, Body: []byte("no healthy upstream"), Details: "no_healthy_upstream", Flag: streaminfo.NoHealthyUpstream})
		return false
	case errors.Is(err, errInvalid):
		k.reply(invalidReply(k.invalid))
		return false
	case whole:
		k.stats.RqTimeout.Inc()
		k.tallies.add(timedOut)
		k.endpoint.Timeouts.Add(1)
		k.endpoint.Errors.Add(1)
		k.cluster.ReportFailure(k.endpoint, true)
		k.reply(k.timeoutReply("response_timeout"))
		return false
	case late:
		k.countLate()
		k.endpoint.Timeouts.Add(1)
		k.endpoint.Errors.Add(1)
		k.cluster.ReportFailure(k.endpoint, true)
		reset = &http.Reset{Reason: http.LocalReset}
	case !errors.As(err, &reset):
		return false // errBody: the connection manager knows what the client did
	default:
		k.blame(reset)
	}
	k.retry.late = late
	if (repeat || k.unsent(reset)) && k.again(reset) {
		return true
	}
	if late {
		k.replyLate()
		return false
	}
	k.takeAtHand(reset)
	k.reply(k.resetReply(reset))
	return false
}

// takeAtHand reads what the client has sent while an endpoint was not reached, so that the
// answer comes after it and its connection lives on.
func (k *call) takeAtHand(reset *http.Reset) {
	body := k.s.Request.Body
	if reset.Reason == http.Overflow || k.pump.started() {
		return
	}
	for n := 0; n < defaultBodyLimit && !body.Done() && body.Ready(); {
		p, err := body.Next()
		if err != nil {
			return
		}
		n += len(p)
	}
}

// dropFailed releases the broken attempt; a body that was being pumped is lost then.
func (k *call) dropFailed() {
	if k.stream != nil {
		k.drop()
	}
}

// unsent reports a failure before the first byte of the request was taken.
func (k *call) unsent(reset *http.Reset) bool {
	return k.retry.policy != nil && reset.Unused && !k.pump.started() && k.body.untouched()
}

// again asks the retry policy.
func (k *call) again(reset *http.Reset) bool {
	switch k.retry.reset(k, reset) {
	case again:
		return true
	case exhausted:
		k.s.Info.Flags.Set(streaminfo.UpstreamRetryLimitExceeded)
	case refused:
		k.s.Info.Flags.Set(streaminfo.UpstreamOverflow)
	}
	return false
}

// blame counts a broken attempt for the endpoint.
func (k *call) blame(reset *http.Reset) {
	if reset.Reason == http.Overflow {
		k.s.Info.Upstream = nil
		return
	}
	k.endpoint.Errors.Add(1)
	if reset.Reason == http.ProtocolError {
		k.stats.CxProtocolError.Inc()
	}
	if reset.Reason != http.RemoteConnectionFailure && reset.Reason != http.ConnectionTimeout {
		k.cluster.ReportFailure(k.endpoint, false)
	}
}

// maintenance answers a request to a cluster that is in maintenance.
func (k *call) maintenance() {
	k.stats.RqMaintenance.Inc()
	r := http.Reply{Status: 503, Body: []byte("maintenance mode"), Details: "maintenance_mode", Flag: streaminfo.UpstreamOverflow, GRPCStatus: -1}
	if !k.r.quiet {
		r.Prepend = []http.Field{{Name: []byte("x-envoy-overloaded"), Value: []byte("true")}}
	}
	k.reply(r)
}

// overload answers a request that the control plane wants dropped, like all or like some.
func (k *call) overload(all bool) {
	r := http.Reply{Status: 503, Body: []byte("drop overload"), Details: "drop_overload", Flag: streaminfo.DropOverload}
	header := "x-envoy-drop-overload"
	if all {
		r = http.Reply{Status: 503, Body: []byte("unconditional drop overload"), Details: "unconditional_drop_overload",
			Flag: streaminfo.UnconditionalDropOverload}
		header = "x-envoy-unconditional-drop-overload"
	}
	if !k.r.quiet {
		r.Prepend = []http.Field{{Name: []byte(header), Value: []byte("true")}}
	}
	k.reply(r)
}

// invalidReply is the answer to a request whose head, as the route edits it, could not
// be sent.
func invalidReply(name []byte) http.Reply {
	text := "invalid header value for: " + string(name)
	return http.Reply{Status: 503, Body: []byte(text), Details: "filter_removed_required_request_headers{" + underscored(text) + "}",
		Flag: streaminfo.DownstreamProtocolError}
}

// countLate counts an attempt that took too long, or in which nothing came for too long.
func (k *call) countLate() {
	if k.idles() {
		k.stats.RqPerTryIdleTimeout.Inc()
		return
	}
	k.stats.RqPerTryTimeout.Inc()
}

// idles reports that per_try_idle_timeout ends an attempt before per_try_timeout does.
func (k *call) idles() bool { return k.perTryIdle > 0 && (k.perTry == 0 || k.perTryIdle < k.perTry) }

func (k *call) replyLate() {
	r := k.timeoutReply("upstream_per_try_timeout")
	if k.idles() {
		r.Details = "upstream_per_try_idle_timeout"
	}
	k.reply(r)
}

// timeoutReply is the answer to a client that waited too long, 204 where a proxy before
// this one has asked for that.
func (k *call) timeoutReply(details string) http.Reply {
	r := http.Reply{Status: 504, Body: []byte("upstream request timeout"), Details: details, Flag: streaminfo.UpstreamRequestTimeout}
	if k.altTimeout {
		r.Status, r.Body = 204, nil
	}
	return r
}

// resetReply is the answer for a broken exchange.
func (k *call) resetReply(reset *http.Reset) http.Reply {
	text := "upstream connect error or disconnect/reset before headers. "
	if k.retry.tries > 0 {
		text += "retried and the latest "
	}
	text += "reset reason: " + reset.Reason.String()
	when := "before"
	if k.informed {
		when = "after"
	}
	r := http.Reply{Status: 503, Body: []byte(text), Flag: reset.Reason.Flag(),
		Details: "upstream_reset_" + when + "_response_started{" + reset.Error() + "}"}
	if reset.Reason == http.ProtocolError {
		r.Status = 502
	}
	if reset.Reason == http.Overflow {
		r.Prepend = []http.Field{{Name: []byte("x-envoy-overloaded"), Value: []byte("true")}}
	}
	if k.r.inbound && reset.Unused && reset.Reason == http.RemoteConnectionFailure && k.fromProxy {
		r.Prepend = []http.Field{{Name: []byte(wellknown.UnsentHeader), Value: []byte("true")}}
	}
	k.s.Info.UpstreamFailureReason = underscored(reset.Detail)
	return r
}

// reply answers the stream.
func (k *call) reply(r http.Reply) {
	s := k.s
	r.GRPCStatus = -1
	if k.target.VirtualHost.IncludeAttemptCountInResponse {
		r.Prepend = append(r.Prepend, http.Field{Name: []byte("x-envoy-attempt-count"), Value: strconv.AppendInt(nil, int64(s.Info.Attempts), 10)})
	}
	if r.Status/100 == 5 && k.stream == nil {
		s.Info.UpstreamResponse = 0
	}
	k.charge(r.Status, time.Time{})
	s.Reply(r)
}

// refusedBeyond is an attempt that the application behind the next proxy has refused.
var refusedBeyond = &http.Reset{Reason: http.RemoteConnectionFailure, Unused: true}

// refusedByApplication reports that the next proxy could not connect to its application,
// and that the retry policy has another attempt for that.
func (k *call) refusedByApplication() bool {
	h := &k.s.Response.Headers
	if k.r.inbound || k.s.Response.Status != 503 || !h.Has(wellknown.UnsentHeader) {
		return false
	}
	h.Remove(wellknown.UnsentHeader)
	return k.mayRepeat() && k.retry.reset(k, refusedBeyond) == again
}

// gone ends a call that nobody waits for any more; the connection manager knows why.
func (k *call) gone() { k.stats.RqCancelled.Inc() }

// underscored is how reasons stand in logs.
func underscored(text string) string {
	b := []byte(text)
	for i := range b {
		if b[i] == ' ' {
			b[i] = '_'
		}
	}
	return string(b)
}
