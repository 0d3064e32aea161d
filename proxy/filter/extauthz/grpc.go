package extauthz

import (
	"errors"
	"slices"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc/codes"

	"github.com/lateen-mesh/lateen/proxy/callout"
	"github.com/lateen-mesh/lateen/proxy/format"
	"github.com/lateen-mesh/lateen/proxy/http"
)

const checkMethod = "/envoy.service.auth.v3.Authorization/Check"

// grpcService asks an Authorization service.
type grpcService struct{ to *callout.Service }

func (g *grpcService) String() string { return "cluster " + g.to.Cluster() + " by gRPC" }

func (g *grpcService) decide(s *http.Stream, c *callout.Client, q *question) (*decision, bool) {
	k := callout.Call{Service: g.to, Method: checkMethod, Record: format.Of(s)}
	if s.Trace != nil {
		s.Trace.Mirror(&k.Headers, true)
	}
	var answer authv3.CheckResponse
	err := c.Unary(s, &k, &q.check, &answer)
	if errors.Is(err, callout.ErrLeft) {
		return nil, false
	}
	if err != nil {
		return &decision{outcome: failed}, true
	}
	return decisionOf(&answer), true
}

// decisionOf reads the answer of an Authorization service.
func decisionOf(r *authv3.CheckResponse) *decision {
	d := &decision{outcome: allowed, metadata: r.GetDynamicMetadata().AsMap()}
	if m := r.GetOkResponse().GetDynamicMetadata(); m != nil {
		d.metadata = m.AsMap()
	}
	denied, broken := r.GetDeniedResponse(), r.GetErrorResponse()
	switch {
	case codes.Code(r.GetStatus().GetCode()) == codes.OK:
		d.takeOK(r.GetOkResponse())
	case broken != nil:
		d.outcome = failed
		d.reply = reply{status: int(broken.GetStatus().GetCode()), body: []byte(broken.GetBody()), headers: d.edits(broken.GetHeaders(), ofReply)}
	default:
		d.outcome = refused
		d.reply = reply{status: int(denied.GetStatus().GetCode()), body: []byte(denied.GetBody()), headers: d.edits(denied.GetHeaders(), ofReply)}
		if d.reply.status == 0 {
			d.reply.status = 403
		}
	}
	return d
}

func (d *decision) takeOK(ok *authv3.OkHttpResponse) {
	d.request, d.remove = d.edits(ok.GetHeaders(), ofRequest), ok.GetHeadersToRemove()
	d.response = d.edits(ok.GetResponseHeadersToAdd(), ofResponse)
	slices.SortStableFunc(d.request, byWay)
	slices.SortStableFunc(d.response, byWay)
	for _, p := range ok.GetQueryParametersToSet() {
		d.setQuery = append(d.setQuery, [2]string{p.GetKey(), p.GetValue()})
	}
	d.dropQuery = ok.GetQueryParametersToRemove()
}

// byWay orders edits as Envoy makes them: by what they do.
func byWay(a, b edit) int { return int(a.how) - int(b.how) }

// edits reads changes of headers; how says what one does where it is made, false for nothing.
func (d *decision) edits(list []*corev3.HeaderValueOption, how func(*corev3.HeaderValueOption) (way, bool)) []edit {
	out := make([]edit, 0, len(list))
	for _, o := range list {
		if corev3.HeaderValueOption_HeaderAppendAction_name[int32(o.GetAppendAction())] == "" {
			d.odd = true
		}
		if w, ok := how(o); ok {
			out = append(out, edit{strings.ToLower(o.GetHeader().GetKey()), o.GetHeader().GetValue(), w})
		}
	}
	return out
}

// ofRequest: append_action means nothing to a header of the request, only append does.
func ofRequest(o *corev3.HeaderValueOption) (way, bool) {
	if o.GetAppend().GetValue() {
		return extend, true
	}
	return set, true
}

// ofReply: all headers of an answer are added to it, which has none of their names, but for
// those that would only continue one.
func ofReply(o *corev3.HeaderValueOption) (way, bool) {
	return add, !o.GetAppend().GetValue()
}

// ofResponse: append comes before append_action.
func ofResponse(o *corev3.HeaderValueOption) (way, bool) {
	if o.GetAppend() != nil {
		if o.GetAppend().GetValue() {
			return add, true
		}
		return set, true
	}
	switch o.GetAppendAction() {
	case corev3.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD:
		return add, true
	case corev3.HeaderValueOption_ADD_IF_ABSENT:
		return addIfAbsent, true
	case corev3.HeaderValueOption_OVERWRITE_IF_EXISTS:
		return overwrite, true
	case corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD:
		return set, true
	}
	return 0, false
}
