package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/conveyor-go/conveyor"
)

// judge says what the pipeline is to do after a push that failed. A fault that cannot pass is permanent, and names the
// credentials if they can be the cause. After a fault that can pass, the next attempt waits as long as the registry asks for.
func judge(err error, credentials string, wait time.Duration) error {
	var answer *transport.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &answer) && final(answer):
		if credentials != "" && slices.Contains(aboutCredentials, answer.StatusCode) {
			err = fmt.Errorf("%w; pushed %s", err, credentials)
		}
		return conveyor.Permanent(err)
	case errors.Is(err, errPlainHTTP), errors.As(err, new(*tls.CertificateVerificationError)):
		return conveyor.Permanent(err)
	case wait > 0:
		return conveyor.RetryAfter(wait, fmt.Errorf("%w; the registry asks to wait %s", err, wait.Round(time.Second)))
	}
	return err
}

// aboutCredentials are the answers of a registry that are often about credentials. Registries answer with 404 to who may not
// know that there is such a repository.
var aboutCredentials = []int{http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound}

// final reports whether a registry has understood a request and has rejected it.
func final(answer *transport.Error) bool {
	switch status := answer.StatusCode; {
	case status >= http.StatusInternalServerError, status == http.StatusTooManyRequests, status == http.StatusRequestTimeout:
		return false
	case slices.ContainsFunc(answer.Errors, func(d transport.Diagnostic) bool { return d.Code == transport.BlobUploadUnknownErrorCode }):
		return false // the registry has forgotten an upload, and another one can be begun
	case slices.Contains(aboutCredentials, status):
		return true // whatever the code in the document says: some registries say UNKNOWN
	}
	return !answer.Temporary()
}

// waitRecorder keeps the longest time that a registry asks to wait.
type waitRecorder struct {
	http.RoundTripper

	mu   sync.Mutex // guards wait; held for a copy
	wait time.Duration
}

func (r *waitRecorder) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := r.RoundTripper.RoundTrip(req)
	if err != nil || resp.StatusCode < http.StatusBadRequest {
		return resp, err
	}
	if wait := retryAfter(resp.Header.Get("Retry-After"), time.Now()); wait > 0 {
		r.mu.Lock()
		r.wait = max(r.wait, wait)
		r.mu.Unlock()
	}
	return resp, nil
}

func (r *waitRecorder) longest() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.wait
}

// retryAfter parses the header Retry-After, which has seconds or a date. It returns 0 for a header that has neither.
func retryAfter(header string, now time.Time) time.Duration {
	if seconds, err := strconv.ParseInt(header, 10, 32); err == nil {
		return max(time.Duration(seconds)*time.Second, 0)
	}
	if date, err := http.ParseTime(header); err == nil {
		return max(date.Sub(now), 0)
	}
	return 0
}
