# Occupancy of several states with the survival package: shares and infinitesimal-jackknife errors.
# Rscript duration_states.R > duration_states.json
library(survival)
library(jsonlite)
set.seed(20260101)

names <- c("benefit", "subsidised", "regular", "out")
draw <- function(id, from, late) {
  t <- if (late) sample(seq(0.5, 4, 0.5), 1) else 0
  at <- from
  end <- t + sample(seq(6, 24, 0.5), 1)
  rows <- NULL
  repeat {
    stop <- t + ceiling(2 * rexp(1, c(0.20, 0.25, 0.12)[at])) / 2
    last <- stop >= end
    go <- if (last) 0 else sample(setdiff(1:4, at), 1, prob = list(c(3, 3, 1), c(3, 4, 1), c(5, 1, 1))[[at]])
    rows <- rbind(rows, data.frame(id = id, start = t, stop = min(stop, end), state = at, goes = go))
    if (last || go == 4) return(rows)
    t <- stop
    at <- go
  }
}
d <- do.call(rbind, lapply(1:90, function(i) draw(i, if (i %% 5 == 0) 3 else 1, i %% 3 == 0)))
d$weight <- c(1, 2.5, 0.7)[d$id %% 3 + 1]
d$cluster <- (d$id * 7) %% 13
d$group <- ifelse(d$id %% 2 == 0, "even", "odd")
d$event <- factor(d$goes, 0:4, c("censor", names))
d$from <- names[d$state]
times <- c(1, 2.5, 3, 6, 6.25, 9, 12)

shown <- function(fit, times) {
  s <- summary(fit, times = times)
  order <- match(names, fit$states)
  list(times = s$time, strata = if (is.null(s$strata)) "all" else as.character(s$strata),
       share = unname(s$pstate[, order]), std_error = unname(s$std.err[, order]))
}
# Where people begin is estimated too, but survfit counts the shares of the first moment as known (sp0 is 0). The full
# infinitesimal jackknife: derivatives of its own shares to the weights of each cluster.
numeric <- function(data, weight, cluster, times) {
  at <- function(w) {
    data$w <- w
    summary(survfit(Surv(start, stop, event) ~ 1, data = data, id = id, istate = from, weights = w),
            times = times)$pstate
  }
  total <- 0
  for (g in unique(cluster)) {
    step <- 1e-4 * (cluster == g)
    total <- total + ((8 * (at(weight * (1 + step)) - at(weight * (1 - step))) -
                         (at(weight * (1 + 2 * step)) - at(weight * (1 - 2 * step)))) / 12e-4)^2
  }
  fit <- survfit(Surv(start, stop, event) ~ 1, data = data, id = id, istate = from)
  unname(sqrt(total)[, match(names, fit$states)])
}
first <- d[!duplicated(d$id), ]
inflow <- d[d$id %in% first$id[first$start == 0 & first$state == 1], ]
there <- d$id[d$start <= 4.25 & d$stop > 4.25 & d$state == 1]
form <- Surv(start, stop, event) ~ 1
out <- list(
  provenance = paste("R", getRversion(), "survival", packageVersion("survival"), "by duration_states.R"),
  states = names,
  data = d[, c("id", "start", "stop", "from", "goes", "weight", "cluster", "group")],
  inflow = shown(survfit(form, data = inflow, id = id, istate = from), times),
  late = shown(survfit(form, data = d, id = id, istate = from), times),
  weighted = shown(survfit(form, data = d, id = id, istate = from, weights = weight, cluster = cluster), times),
  groups = shown(survfit(Surv(start, stop, event) ~ group, data = d, id = id, istate = from), times),
  from_benefit = shown(survfit(form, data = d, id = id, istate = from, start.time = 4.25, p0 = c(1, 0, 0, 0)),
                       c(5, 6.25, 9, 12)),
  found = shown(survfit(form, data = d[d$id %in% there, ], id = id, istate = from, start.time = 4.25),
                c(5, 6.25, 9, 12))
)
out$late_full <- numeric(d, rep(1, nrow(d)), d$id, times)
out$weighted_full <- numeric(d, d$weight, d$cluster, times)
even <- d[d$group == "even", ]
out$even_full <- numeric(even, rep(1, nrow(even)), even$id, times)
fit <- survfit(form, data = d, id = id, istate = from, start.time = 4.25)
area <- summary(fit, rmean = 12)$table
out$area <- list(until = 12, states = rownames(area), months = unname(area[, "rmean"]))
cat(toJSON(out, digits = NA, auto_unbox = TRUE, dataframe = "columns"))
