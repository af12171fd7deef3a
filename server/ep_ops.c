/* ep_ops.c: what those who run the server ask: is it alive, is it ready, what does it do. Public, and
 * answered also when the server is full or stopping.
 */
#include "server/endpoints.h"
#include "server/loop.h"
#include "server/metrics.h"

#include <stdlib.h>
#include <string.h>
#include <uv.h>

void ep_healthz(struct request *req)
{
    reply_json(req, 200, json_pack("{s:s}", "status", "alive"));
}

void ep_readyz(struct request *req)
{
    const struct server *server = request_server(req);
    if (server->ready) {
        reply_json(req, 200, json_pack("{s:s}", "status", "ready"));
    } else {
        reply_problem(req, 503, "draining", NULL, "the server is stopping");
    }
}

void ep_metrics(struct request *req)
{
    size_t len = 0;
    char *text = metrics_text(request_server(req)->metrics, &len);
    if (text == NULL) {
        reply_no_memory(req);
        return;
    }
    reply_take(req, 200, "text/plain; version=0.0.4; charset=utf-8", text, len, free);
}

void ep_version(struct request *req)
{
    const struct server *server = request_server(req);
    const eng_model_info *model = eng_model_get_info(server->model);
    const eng_bank_info *bank = eng_bank_get_info(server->bank);
    const eng_compute_info *compute = eng_compute_get_info(server->compute);
    json_t *body = json_pack(
        "{s:s, s:s, s:{s:s, s:s, s:s}, s:{s:s, s:s}, s:{s:s, s:s}, s:{s:I, s:s}, s:I}", "name",
        "mp2", "version", MP2_VERSION, "libraries", "http", http_library(), "libuv",
        uv_version_string(), "jansson", JANSSON_VERSION, "model", "name", model->name,
        "fingerprint", model->fingerprint, "bank", "name", bank->name, "fingerprint",
        bank->fingerprint, "compute", "threads", (json_int_t)compute->threads, "kernel",
        compute->kernel, "uptime_seconds", (json_int_t)((wall_ms() - server->started_ms) / 1000));
    reply_json(req, 200, body);
}
