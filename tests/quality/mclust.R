# Rscript mclust.R FOLDER: the automatic answers of mclust for every data set in FOLDER.
# In: FOLDER/tasks.csv (name, smallest and largest number of groups, whether by ICL as well) and
# FOLDER/<name>.csv, without a head. Out: FOLDER/<name>.<criterion>.labels.csv, and one line of
# output for each answer: name, criterion, groups, family, CPU seconds.
suppressPackageStartupMessages(library(mclust))
options(warn = -1)
folder <- commandArgs(trailingOnly = TRUE)[1]
tasks <- read.csv(file.path(folder, "tasks.csv"), stringsAsFactors = FALSE)
set.seed(0)  # above 2,000 rows its agglomeration looks at a sample
for (row in seq_len(nrow(tasks))) {
  task <- tasks[row, ]
  x <- as.matrix(read.csv(file.path(folder, paste0(task$name, ".csv")), header = FALSE))
  sizes <- task$least:task$most
  for (criterion in c("BIC", if (task$icl) "ICL")) {
    begun <- proc.time()
    scan <- if (criterion == "BIC") mclustBIC(x, G = sizes, verbose = FALSE)
            else mclustICL(x, G = sizes, verbose = FALSE)
    best <- strsplit(names(pickBIC(scan, 1)), ",")[[1]]
    fit <- if (criterion == "BIC") Mclust(x, x = scan, verbose = FALSE)
           else Mclust(x, G = as.integer(best[2]), modelNames = best[1], verbose = FALSE)
    seconds <- (proc.time() - begun)["user.self"]
    file <- file.path(folder, paste(task$name, criterion, "labels.csv", sep = "."))
    write.table(fit$classification - 1, file, row.names = FALSE, col.names = FALSE)
    cat(task$name, criterion, best[2], best[1], seconds, sep = ",")
    cat("\n")
    flush(stdout())
  }
}
