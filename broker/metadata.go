package broker

import "net/http"

func (b *Broker) metadata(w http.ResponseWriter, _ *http.Request) {}

func (b *Broker) openAPI(w http.ResponseWriter, _ *http.Request) {}
