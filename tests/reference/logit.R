# Writes logit_glm.json: R's own maximum-likelihood logit on logit.csv. Base R only.
# Run in this folder: Rscript logit.R

d <- read.csv("logit.csv", stringsAsFactors = FALSE)
tight <- glm.control(epsilon = 1e-14, maxit = 100)

number <- function(x) sprintf("%.17g", x)
pairs <- function(x) paste0("\"", names(x), "\": ", number(x), collapse = ", ")
block <- function(name, formula) {
  fit <- glm(formula, family = binomial(), data = d, control = tight)
  # standard errors at the estimate itself; summary() takes them from the last but one iteration
  x <- model.matrix(fit)
  p <- drop(plogis(x %*% coef(fit)))
  se <- sqrt(diag(solve(crossprod(x * sqrt(p * (1 - p))))))
  names(se) <- names(coef(fit))
  paste0(
    "\"", name, "\": {\"coefficient\": {", pairs(coef(fit)), "}, \"std_error\": {", pairs(se),
    "}, \"loglik\": ", number(as.numeric(logLik(fit))), "}"
  )
}

d$education <- factor(d$education, levels = c("high", "low", "middle"))
d$sex <- factor(d$sex, levels = c("man", "woman"))
d$quarter <- factor(d$quarter)
blocks <- c(
  block("numbers", started ~ distance + age),
  block("everything", started ~ distance + age + sex + education + quarter)
)
text <- c(
  "{", paste0("\"r_version\": \"", R.version.string, "\","), paste(blocks, collapse = ",\n"), "}"
)
writeLines(text, "logit_glm.json")
