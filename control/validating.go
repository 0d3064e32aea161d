package control

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/lateen-mesh/lateen/control/config"
)

// A validator answers the API whether an object of the mesh may be stored: /validate judges
// by the rules of `lateen validate`, so that a mistake is refused where it is made. Nothing
// is kept, a dry run is answered like any other.
//
//	kubectl apply ─► API ─► /validate ─► config.Review ─► refused with the reasons, or stored with warnings
type validator struct {
	log            *slog.Logger
	gate           chan struct{} // has a place for each review that is being answered
	passed, failed *prometheus.CounterVec
}

func newValidator(o Options, registry prometheus.Registerer) *validator {
	labels := []string{"group", "version", "kind"}
	v := &validator{
		log: o.Log.Scope("validation"), gate: make(chan struct{}, maxReviews),
		passed: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "galley_validation_passed", Help: "Objects that the API may store."}, labels),
		failed: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "galley_validation_failed", Help: "Objects that were refused."}, labels),
	}
	registry.MustRegister(v.passed, v.failed)
	return v
}

// ServeHTTP answers one AdmissionReview.
func (v *validator) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, done := posted(w, r, v.gate)
	if done == nil {
		return
	}
	defer done()
	var review admissionv1.AdmissionReview // that of v1beta1 has the same fields
	if err := json.Unmarshal(body, &review); err != nil || review.Request == nil {
		err = cmp.Or(err, errors.New("it has no request"))
		http.Error(w, fmt.Sprintf("no AdmissionReview: %v", err), http.StatusBadRequest)
		return
	}
	response := v.judge(review.Request)
	response.UID = review.Request.UID
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(admissionv1.AdmissionReview{TypeMeta: review.TypeMeta, Response: response})
}

// judge decides about one object.
func (v *validator) judge(r *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
	if r.Operation != admissionv1.Create && r.Operation != admissionv1.Update || !judged(r.Kind) {
		return &admissionv1.AdmissionResponse{Allowed: true}
	}
	response := &admissionv1.AdmissionResponse{Allowed: true}
	var wrong []string
	var causes []metav1.StatusCause // for programs, with the path in the object
	for _, p := range config.Review(r.Object.Raw) {
		switch {
		case p.Severity == config.Error:
			wrong = append(wrong, sentence(p))
			if path := pathOf(p.Field); path != "" {
				causes = append(causes, metav1.StatusCause{Type: metav1.CauseTypeFieldValueInvalid, Field: path, Message: p.Message})
			}
		case !p.Aside: // what this version does not do is no fault of the object
			response.Warnings = append(response.Warnings, sentence(p))
		}
	}
	if len(wrong) == 0 {
		v.passed.WithLabelValues(r.Kind.Group, r.Kind.Version, r.Kind.Kind).Inc()
		return response
	}
	v.failed.WithLabelValues(r.Kind.Group, r.Kind.Version, r.Kind.Kind).Inc()
	text := wrong[0]
	if len(wrong) > 1 {
		text = fmt.Sprintf("%d errors occurred:\n\t* %s\n\n", len(wrong), strings.Join(wrong, "\n\t* "))
	}
	v.log.Info("object refused", "object", r.Kind.Kind+" "+r.Namespace+"/"+r.Name, "user", r.UserInfo.Username, "reason", text)
	response.Allowed, response.Result = false, &metav1.Status{Message: "configuration is invalid: " + text}
	if len(causes) == len(wrong) {
		response.Result.Details = &metav1.StatusDetails{Group: r.Kind.Group, Kind: r.Kind.Kind, Name: r.Name, Causes: causes}
	}
	return response
}

// pathOf is the path of a field from the top of its object.
func pathOf(field string) string {
	top, _, _ := strings.Cut(field, ".")
	if top == "" || top == "metadata" || top == "kind" || top == "apiVersion" || top == "spec" {
		return field
	}
	return "spec." + field
}

// judged is whether a kind is one of the mesh's own; the API judges the others.
func judged(k metav1.GroupVersionKind) bool {
	return slices.ContainsFunc(config.Resources(), func(r config.Resource) bool {
		return r.Custom && r.Group == k.Group && string(r.Kind) == k.Kind && slices.Contains(r.Versions, k.Version)
	})
}

// sentence is a problem in one line, without the object, which the API names.
func sentence(p config.Problem) string {
	text := p.Message
	if p.Field != "" {
		text = p.Field + ": " + text
	}
	if p.Hint != "" {
		text += " (" + p.Hint + ")"
	}
	return text
}
